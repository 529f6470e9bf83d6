output "public_addresses" {
  description = "Floating address of each public machine; the site's name leads there."
  value       = { for name, address in openstack_networking_floatingip_v2.public : name => address.address }
}

output "data_devices" {
  description = "Device of each machine's volume for data, by the name that virtio-blk gives it."
  value = {
    for name, attached in openstack_compute_volume_attach_v2.data :
    name => "/dev/disk/by-id/virtio-${substr(attached.volume_id, 0, 20)}"
  }
}
