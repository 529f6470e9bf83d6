# What an environment consists of, as data. Adapters turn it into a provider's resources.
locals {
  prefix = "amarre-${var.environment}"
  order  = sort(keys(var.roles))

  subnets = {
    # By the role's own number: another role must not renumber the machines of this one.
    for name in local.order : name => cidrsubnet(var.cidr, 4, var.roles[name].subnet)
  }

  machines = merge([
    for name in local.order : {
      for number in range(1, var.roles[name].count + 1) :
      "${local.prefix}-${name}-${number}" => {
        role      = name
        number    = number
        address   = cidrhost(local.subnets[name], number + 9)
        cores     = var.roles[name].cores
        memory_gb = var.roles[name].memory_gb
        data_gb   = var.roles[name].data_gb
        public    = var.roles[name].public
      }
    }
  ]...)

  # Whom each role lets in. What is not here is denied.
  from_operators = [
    for pair in setproduct(local.order, sort(toset(var.operators))) : {
      role = pair[0], port_min = 22, port_max = 22, protocol = "tcp", from = pair[1], why = "SSH of operators"
    }
  ]
  from_world = flatten([
    for name in local.order : [
      for port in [80, 443] : {
        role = name, port_min = port, port_max = port, protocol = "tcp", from = "0.0.0.0/0", why = "browsers"
      }
    ] if var.roles[name].public
  ])
  from_inside = [
    for name in local.order : {
      role = name, port_min = 9100, port_max = 9100, protocol = "tcp", from = var.cidr, why = "node exporter"
    }
  ]
}
