output "prefix" {
  description = "Begins the name of everything in this environment."
  value       = local.prefix
}

output "subnets" {
  description = "IPv4 range of each role."
  value       = local.subnets
}

output "machines" {
  description = "Every machine by name: role, number, address, size."
  value       = local.machines
}

output "rules" {
  description = "Whom each role lets in: role, ports, protocol, range, why."
  value       = concat(local.from_operators, local.from_world, local.from_inside)
}

output "inventory" {
  description = "Ansible's inventory: groups by role, addresses inside."
  value = {
    all = {
      children = {
        for name in local.order : name => {
          hosts = {
            for machine, facts in local.machines : machine => { ansible_host = facts.address }
            if facts.role == name
          }
        }
      }
      vars = {
        environment_name = var.environment
        base_operators   = sort(toset(var.operators))
      }
    }
  }
}
