output "inventory" {
  description = "Write it to mesh/deploy/ansible/inventory/staging.json."
  value = {
    all = {
      vars = merge(module.core.inventory.all.vars, { ansible_user = var.ssh_user })
      children = {
        for role, group in module.core.inventory.all.children : role => {
          hosts = {
            # Operators reach the floating address; node exporter listens on the inner one.
            for name, host in group.hosts : name => merge(host, {
              ansible_host  = lookup(module.machines.public_addresses, name, host.ansible_host)
              agents_listen = host.ansible_host
              docker_volume = lookup(module.machines.data_devices, name, "")
            })
          }
        }
      }
    }
  }
}

output "public_addresses" {
  description = "Where the site's name must lead."
  value       = module.machines.public_addresses
}
