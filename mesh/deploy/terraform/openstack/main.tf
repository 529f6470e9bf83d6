# The core module's data as OpenStack resources, as many European universities run it.
data "openstack_networking_network_v2" "external" {
  name     = var.external_network
  external = true
}

data "openstack_compute_flavor_v2" "size" {
  for_each = var.subnets
  name     = var.flavors[each.key]

  lifecycle {
    postcondition {
      condition = alltrue([
        for machine in values(var.machines) : self.vcpus >= machine.cores && self.ram >= machine.memory_gb * 1024
        if machine.role == each.key
      ])
      error_message = "The flavor of role ${each.key} is smaller than the role asks for."
    }
  }
}

resource "openstack_networking_network_v2" "private" {
  name                  = var.prefix
  admin_state_up        = true
  port_security_enabled = true
}

resource "openstack_networking_subnet_v2" "role" {
  for_each        = var.subnets
  name            = "${var.prefix}-${each.key}"
  network_id      = openstack_networking_network_v2.private.id
  cidr            = each.value
  ip_version      = 4
  dns_nameservers = var.name_servers
}

resource "openstack_networking_router_v2" "outwards" {
  name                = var.prefix
  external_network_id = data.openstack_networking_network_v2.external.id
}

resource "openstack_networking_router_interface_v2" "role" {
  for_each  = openstack_networking_subnet_v2.role
  router_id = openstack_networking_router_v2.outwards.id
  subnet_id = each.value.id
}

resource "openstack_networking_secgroup_v2" "role" {
  for_each             = var.subnets
  name                 = "${var.prefix}-${each.key}"
  description          = "What reaches ${each.key}; everything else is denied."
  delete_default_rules = false
}

resource "openstack_networking_secgroup_rule_v2" "in" {
  for_each          = { for rule in var.rules : "${rule.role}-${rule.port_min}-${rule.from}" => rule }
  direction         = "ingress"
  ethertype         = "IPv4"
  protocol          = each.value.protocol
  port_range_min    = each.value.port_min
  port_range_max    = each.value.port_max
  remote_ip_prefix  = each.value.from
  description       = each.value.why
  security_group_id = openstack_networking_secgroup_v2.role[each.value.role].id
}

resource "openstack_compute_servergroup_v2" "apart" {
  for_each = var.subnets
  name     = "${var.prefix}-${each.key}"
  policies = ["soft-anti-affinity"]
}

resource "openstack_networking_port_v2" "machine" {
  for_each           = var.machines
  name               = each.key
  network_id         = openstack_networking_network_v2.private.id
  security_group_ids = [openstack_networking_secgroup_v2.role[each.value.role].id]

  fixed_ip {
    subnet_id  = openstack_networking_subnet_v2.role[each.value.role].id
    ip_address = each.value.address
  }
}

resource "openstack_compute_instance_v2" "machine" {
  for_each          = var.machines
  name              = each.key
  image_id          = var.image_id
  flavor_id         = data.openstack_compute_flavor_v2.size[each.value.role].id
  key_pair          = var.key_pair
  availability_zone = var.zones[(each.value.number - 1) % length(var.zones)]

  network {
    port = openstack_networking_port_v2.machine[each.key].id
  }

  scheduler_hints {
    group = openstack_compute_servergroup_v2.apart[each.value.role].id
  }

  lifecycle {
    ignore_changes = [image_id]
  }
}

resource "openstack_blockstorage_volume_v3" "data" {
  for_each    = { for name, machine in var.machines : name => machine if machine.data_gb > 0 }
  name        = "${each.key}-data"
  description = "Databases; backed up by Ansible's role backups."
  size        = each.value.data_gb

  lifecycle {
    prevent_destroy = true
  }
}

resource "openstack_compute_volume_attach_v2" "data" {
  for_each    = openstack_blockstorage_volume_v3.data
  instance_id = openstack_compute_instance_v2.machine[each.key].id
  volume_id   = each.value.id
}

resource "openstack_networking_floatingip_v2" "public" {
  for_each = { for name, machine in var.machines : name => machine if machine.public }
  pool     = var.external_network
  port_id  = openstack_networking_port_v2.machine[each.key].id

  depends_on = [openstack_networking_router_interface_v2.role]
}
