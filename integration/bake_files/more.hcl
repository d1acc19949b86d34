# What the other files have not: types, a second block of a target, functions that call functions, JSON in the middle.
variable "NAMES" {
  type    = map(string)
  default = { a = "1" }
}
variable "PORTS" {
  type    = list(number)
  default = [80]
}
variable "NOTHING" {}
variable "DERIVED" {
  default = "${plain}-${NOTHING == "" ? "none" : NOTHING}"
}
plain = lower("PLAIN")
function "twice" {
  params = [x]
  result = "${x}${x}"
}
function "four" {
  params = [x]
  result = twice(twice(x))
}
group "default" {
  targets = ["one", "nested"]
}
group "nested" {
  targets = ["two", "deeper"]
}
group "deeper" {
  targets = ["three", "one"]
}
target "one" {
  args = {
    NAMES   = jsonencode(NAMES)
    PORTS   = join("+", PORTS)
    DERIVED = DERIVED
    FOUR    = four("x")
    BAKE    = BAKE_CMD_CONTEXT
    NULLED  = null
    COND    = NOTHING != "" || !false ? "yes" : "no"
    MATH    = (1 + 2) * 3 - 4 / 2
    CMP     = 2 >= 2 && 1 < 2
    INDEX   = ["a", "b"][1]
    KEYED   = { k = "v" }.k
    OBJ     = jsonencode({ for k, v in { a = 1, b = 2 } : upper(k) => v * 2 if v > 1 })
    GROUP   = jsonencode({ for v in ["aa", "ab", "ba"] : substr(v, 0, 1) => v... })
    EXPAND  = max([1, 5, 3]...)
    UNICODE = "\u00e9\t"
    ESC     = "$${NOT} %%{NOT} $notvar 100%"
    HTML    = "<a&b>"
  }
  labels = {
    "with.dots" = target.two.tags[0]
    (plain)     = "computed key"
    other       = target.three.args.LATE
  }
  attest = ["type=provenance,mode=min", "type=provenance,mode=max"]
}
target "one" {
  dockerfile = "second.Dockerfile"
  args       = { SECOND = "block" }
}
target "two" {
  tags       = ["two:latest", "", "two:latest"]
  cache-from = ["type=registry,ref=b", "a", "a", "type=registry,ref=b"]
  output     = ["type=docker", { type = "image", push = true }]
  secret     = [{ id = "x", env = "X" }, "id=x,env=Y"]
  platforms  = ["linux/amd64", "linux/amd64"]
}
target "three" {
  inherits = ["two", "one"]
  args     = { LATE = "late ${plain}" }
  context  = BAKE_CMD_CONTEXT
  tags     = null
}
target "left" {
  inherits = ["root"]
  args     = { SIDE = "left" }
  tags     = ["left"]
}
target "right" {
  inherits = ["root"]
  args     = { SIDE = "right", ROOT = "changed" }
}
target "root" {
  args = { ROOT = "root", SIDE = "none" }
}
target "diamond" {
  inherits = ["left", "right"]
}
