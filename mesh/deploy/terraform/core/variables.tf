variable "environment" {
  description = "Name of the environment; part of every name."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.environment))
    error_message = "environment must be 2 to 21 of a-z, 0-9 and -, a letter first."
  }
}

variable "cidr" {
  description = "Private IPv4 range of the environment; one subnet per role is cut from it."
  type        = string
  default     = "10.42.0.0/20"

  validation {
    condition = can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.cidr)) && can(cidrhost(var.cidr, 0)) && (
      try(tonumber(split("/", var.cidr)[1]), 0) <= 22 &&
      try(tonumber(split("/", var.cidr)[1]), 0) >= (startswith(var.cidr, "10.") ? 8 : startswith(var.cidr, "172.") ? 12 : 16)
    )
    error_message = "cidr must be a private IPv4 range of at least a /22, for instance 10.42.0.0/20."
  }
}

variable "roles" {
  description = "Machines by role: number of the subnet, how many, how large, how much disk for data."
  type = map(object({
    subnet    = number
    count     = number
    cores     = number
    memory_gb = number
    data_gb   = optional(number, 0)
    public    = optional(bool, false)
  }))

  validation {
    condition     = length(var.roles) > 0 && alltrue([for role in values(var.roles) : role.count >= 1 && role.count <= 50])
    error_message = "roles must name at least one role, each of 1 to 50 machines."
  }

  validation {
    condition     = alltrue([for role in values(var.roles) : role.subnet >= 0 && role.subnet <= 15]) && length(distinct([for role in values(var.roles) : role.subnet])) == length(var.roles)
    error_message = "Each role needs a subnet number of its own from 0 to 15; never change it later."
  }

  validation {
    condition     = alltrue([for role in values(var.roles) : role.cores >= 1 && role.memory_gb >= 2 && role.data_gb >= 0])
    error_message = "Each role needs at least 1 core and 2 GB of memory, and no negative disk."
  }

  validation {
    condition     = alltrue([for name in keys(var.roles) : can(regex("^[a-z][a-z0-9-]{0,20}$", name))])
    error_message = "Names of roles must be at most 21 of a-z, 0-9 and -, a letter first."
  }
}

variable "operators" {
  description = "IPv4 ranges from which operators reach SSH. Never the whole internet."
  type        = list(string)

  validation {
    condition     = length(var.operators) > 0 && alltrue([for range in var.operators : can(cidrnetmask(range)) && try(cidrhost(range, 0) == split("/", range)[0], false)])
    error_message = "operators must name at least one IPv4 range by its first address, for instance 192.0.2.0/24."
  }

  validation {
    condition     = alltrue([for range in var.operators : try(tonumber(split("/", range)[1]), 0) >= 8])
    error_message = "operators must not open SSH to more than a /8; name the ranges of your people."
  }
}
