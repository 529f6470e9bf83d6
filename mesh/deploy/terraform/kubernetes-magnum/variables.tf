variable "prefix" {
  description = "Output `prefix` of the core module."
  type        = string
}

variable "machines" {
  description = "Output `machines` of the core module; those of the role `workers` become nodes."
  type = map(object({
    role      = string
    number    = number
    address   = string
    cores     = number
    memory_gb = number
    data_gb   = number
    public    = bool
  }))

  validation {
    condition     = length([for machine in values(var.machines) : machine if machine.role == "workers"]) >= 3
    error_message = "Three replicas on different nodes need a role workers of at least 3 machines."
  }
}

variable "template_id" {
  description = "Id of the provider's Magnum template with Kubernetes 1.30 or newer."
  type        = string
}

variable "key_pair" {
  description = "Name of the key pair of the operators."
  type        = string
}

variable "worker_flavor" {
  description = "Flavor of the nodes; must hold what the core module asks of a worker."
  type        = string
}
