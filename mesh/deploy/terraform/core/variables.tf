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
    condition     = can(cidrsubnet(var.cidr, 4, 15)) && can(regex("^(10\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.|192\\.168\\.)", var.cidr))
    error_message = "cidr must be a private IPv4 range that can be cut into 16 subnets, for instance 10.42.0.0/20."
  }
}

variable "roles" {
  description = "Machines by role: how many, how large, how much disk for data."
  type = map(object({
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
    condition     = length(var.operators) > 0 && alltrue([for range in var.operators : can(cidrhost(range, 0))])
    error_message = "operators must name at least one range, for instance 192.0.2.0/24."
  }

  validation {
    condition     = alltrue([for range in var.operators : tonumber(split("/", range)[1]) >= 8])
    error_message = "operators must not open SSH to more than a /8; name the ranges of your people."
  }
}
