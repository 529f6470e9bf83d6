# One host for Compose.
module "core" {
  source      = "../../core"
  environment = "staging"
  operators   = var.operators
  roles = {
    compose = { subnet = 0, count = 1, cores = 4, memory_gb = 8, data_gb = 50, public = true }
  }
}

module "machines" {
  source           = "../../openstack"
  prefix           = module.core.prefix
  subnets          = module.core.subnets
  machines         = module.core.machines
  rules            = module.core.rules
  flavors          = { compose = var.flavor }
  image_id         = var.image_id
  external_network = var.external_network
  key_pair         = var.key_pair
  name_servers     = var.name_servers
}
