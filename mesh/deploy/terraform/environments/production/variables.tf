variable "operators" {
  description = "IPv4 ranges from which operators reach SSH."
  type        = list(string)
}

variable "key_pair" {
  description = "Name of the key pair of the operators."
  type        = string
}

variable "template_id" {
  description = "Id of the provider's Magnum template."
  type        = string
}

variable "worker_flavor" {
  description = "Flavor of the nodes."
  type        = string
}
