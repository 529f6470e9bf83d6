variable "prefix" {
  description = "Output `prefix` of the core module."
  type        = string
}

variable "subnets" {
  description = "Output `subnets` of the core module."
  type        = map(string)
}

variable "machines" {
  description = "Output `machines` of the core module."
  type = map(object({
    role      = string
    number    = number
    address   = string
    cores     = number
    memory_gb = number
    data_gb   = number
    public    = bool
  }))
}

variable "flavors" {
  description = "Name of the flavor of each role; several flavors may have the same size."
  type        = map(string)
}

variable "rules" {
  description = "Output `rules` of the core module."
  type = list(object({
    role     = string
    port_min = number
    port_max = number
    protocol = string
    from     = string
    why      = string
  }))
}

variable "image_id" {
  description = "Id of a Debian 13 cloud image; an id, since names move."
  type        = string
}

variable "external_network" {
  description = "Name of the network that leads outside."
  type        = string
}

variable "key_pair" {
  description = "Name of the key pair of the operators."
  type        = string
}

variable "zones" {
  description = "Availability zones over which the machines of a role are spread."
  type        = list(string)
  default     = ["nova"]
}

variable "name_servers" {
  description = "Name servers of the university."
  type        = list(string)
}
