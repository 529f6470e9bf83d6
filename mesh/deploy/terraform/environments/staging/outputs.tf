output "inventory" {
  description = "Write it to mesh/deploy/ansible/inventory/staging.json."
  value       = module.core.inventory
}

output "public_addresses" {
  description = "Where the site's name must lead."
  value       = module.machines.public_addresses
}
