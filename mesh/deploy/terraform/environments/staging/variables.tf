variable "operators" {
  description = "IPv4 ranges from which operators reach SSH."
  type        = list(string)
}

variable "key_pair" {
  description = "Name of the key pair of the operators."
  type        = string
}

variable "image_id" {
  description = "Id of a Debian 13 cloud image."
  type        = string
}

variable "external_network" {
  description = "Name of the network that leads outside."
  type        = string
}

variable "name_servers" {
  description = "Name servers of the university."
  type        = list(string)
}

variable "flavor" {
  description = "Name of the flavor of the host: 4 cores and 8 GB or more."
  type        = string
}

variable "ssh_user" {
  description = "User of the image who may become root."
  type        = string
  default     = "debian"
}
