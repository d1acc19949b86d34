variable "TAG" { default = "v1" }
variable "N" { default = 3 }
variable "FLAG" { default = true }
variable "LIST" {
  type = list(string)
  default = ["x", "y"]
}
variable "CHECKED" {
  default = "good"
  description = "is it"
  validation {
    condition = CHECKED != ""
    error_message = "must be set"
  }
}
local_name = "demo-${TAG}"
function "tagged" {
  params = [name]
  variadic_params = more
  result = concat(["${name}:${TAG}"], [for m in more : "${name}:${m}"])
}
group "default" { targets = ["app", "all"] }
group "all" {
  description = "everything"
  targets = ["app", "m", "web"]
}
target "base" {
  args = { A = "1", B = null, N = N, F = FLAG, "${TAG}_x" = 1.5 }
  labels = { "org.x" = upper(local_name), "esc" = "$${X} %%{Y}" }
  platforms = ["linux/amd64"]
  cache-from = ["user/app:cache", "type=local,src=c", { type = "gha", scope = "x" }]
  secret = ["id=a,src=a.txt", { id = "b", env = "B" }]

  annotations = ["manifest:a=b"]
  entitlements = ["network.host"]
  description = "the base"
}
target "app" {
  inherits = ["base"]
  context = "./ctx/"
  dockerfile = "sub/Dockerfile"
  tags = tagged("app", "one", "two")
  args = { A = N > 2 && FLAG ? "big" : "small", C = join("-", LIST), D = "a\tb\"q\"\\n", E = add(N, 0.5) }
  cache-from = ["user/app:cache", "type=registry,ref=b"]
  cache-to = ["type=local,dest=c,mode=max"]
  output = ["type=image,push=true", "out", "type=local,dest=x"]
  attest = ["type=provenance,mode=max", "type=sbom,disabled=true", { type = "sbom", generator = "g" }]
  contexts = { base = "target:base", img = "docker-image://alpine", e = "" }
  no-cache = true
  pull = false
  no-cache-filter = ["a", "b", "a"]
  network = "host"
  shm-size = "64m"
  ulimits = ["nofile=1:2"]
  extra-hosts = { h = "1.2.3.4" }
  call = "check"
  target = "final"
}
target "m" {
  name = "m-${replace(ver, ".", "-")}-${os.short}"
  matrix = {
    ver = ["1.0", "2.0"]
    os = [{ short = "d", img = "debian" }, { short = "a", img = "alpine" }]
  }
  args = { VER = ver, IMG = os["img"] }
  tags = [for t in ["x", "y"] : "m:${t}-${ver}" if t != "y"]
}
target "web" {
  inherits = ["base", "app"]
  dockerfile-inline = <<EOT
FROM alpine
RUN echo $${HOME} ${TAG} <x> & \n
EOT
  labels = { "t" = target.app.context, "u" = target.base.args.A, "s" = join(",", [for k, v in {b = 1, a = 2} : "${k}=${v}"]) }
  tags = []
  args = { TRIM = <<-EOT
    a
      b ${TAG}
    EOT
  }
}
target "solo" {
  matrix = { only = ["q"] }
  args = { O = only, S = format("%s-%03d %v %q %.2f", "a", 7, true, "q", 1.5), R = regex_replace("a1b22", "[0-9]+", "<$0>"),
   SP = join("|", split(",", "a,b")), SUB = substr("hello", 1, 3), SH = sha256("x"), B = base64encode("x"), J = jsonencode({b=[1,"x",null,true],a=1.5}),
   L = lookup({a = "1"}, "b", "dflt"), CO = coalesce(null, "z"), LEN = length([1,2]), CT = contains(["a"], "a"), TS = formatdate("YYYY-MM-DD hh:mm:ss ZZZ", "2024-01-02T03:04:05Z"),
   TA = timeadd("2024-01-02T03:04:05Z", "1h10m"), D = 7 / 2, M = 7 % 3, NEG = -3, P = 1 + 2 * 3, T = title("ab cd"), TRY = try(nope.x, "fallback"), CAN = can(1), SPL = join(",", [{n="a"},{n="b"}][*].n), BIG = 1e10, FL = 0.1
   SAN = sanitize("a.b/c"), SL = join(",", slice(["a","b","c"],1,3)), IDX = index(["a","b"],1), R2 = join(",", regex("(\\d+)-(\\d+)", "x 12-34")), DIS = join(",", distinct(["a","b","a"])), SU = join(",", setunion(["b"],["a"])),
   RNG = join(",", range(3)), CH = chomp("a\n"), IND = indent(2, "a\nb"), MN = min(3,1), TRIM = trim("--a--", "-"), ZIP = jsonencode(zipmap(["a"],[1])), MRG = jsonencode(merge({a=1},{b=2})), KEYS = join(",", keys({b=1,a=2})), VAL = join(",", values({b="x",a="y"})), FLAT = join(",", flatten([["a"],["b",["c"]]])), REV = strrev }
}
strrev = reverse("abc")
