# Nodes for the overlay production: three replicas of everything on different nodes.
module "core" {
  source      = "../../core"
  environment = "production"
  cidr        = "10.43.0.0/20"
  operators   = var.operators
  roles = {
    workers = { subnet = 0, count = 3, cores = 4, memory_gb = 16 }
  }
}

module "cluster" {
  source        = "../../kubernetes-magnum"
  prefix        = module.core.prefix
  machines      = module.core.machines
  template_id   = var.template_id
  key_pair      = var.key_pair
  worker_flavor = var.worker_flavor
}
