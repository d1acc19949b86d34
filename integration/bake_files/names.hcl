group "default" {
  targets = ["default", "one"]
}

target "default" {
  tags = ["default"]
}

group "one" {
  targets = ["one", "two"]
}

group "two" {
  targets = ["one"]
}

target "one" {
  tags = ["one"]
}

group "three" {
  targets = ["three", "one"]
}
