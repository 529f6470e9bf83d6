output "public_addresses" {
  description = "Floating address of each public machine; the site's name leads there."
  value       = { for name, address in openstack_networking_floatingip_v2.public : name => address.address }
}
