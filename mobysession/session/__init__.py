"""A session: one connection to the daemon on which this program hosts the services that the daemon calls back."""

from mobysession.session.attach import ATTACH_WAYS, Attachment, Dialer, EndpointDialer, hijack_dialer
from mobysession.session.session import Session, open_session

__all__ = ["ATTACH_WAYS", "Attachment", "Dialer", "EndpointDialer", "Session", "hijack_dialer", "open_session"]
