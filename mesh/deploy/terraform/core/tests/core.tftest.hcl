variables {
  environment = "staging"
  operators   = ["192.0.2.0/24"]
  roles = {
    app  = { subnet = 0, count = 2, cores = 4, memory_gb = 8, public = true }
    data = { subnet = 1, count = 1, cores = 2, memory_gb = 4, data_gb = 50 }
  }
}

run "names_and_addresses" {
  command = plan

  assert {
    condition     = keys(output.machines) == ["amarre-staging-app-1", "amarre-staging-app-2", "amarre-staging-data-1"]
    error_message = "Machines are named by environment, role and number."
  }
  assert {
    condition     = output.machines["amarre-staging-app-2"].address == "10.42.0.11"
    error_message = "Addresses are those of the role's subnet, from the tenth on."
  }
  assert {
    condition     = output.subnets == { app = "10.42.0.0/24", data = "10.42.1.0/24" }
    error_message = "Each role has a subnet of its own."
  }
}

run "only_public_roles_meet_the_world" {
  command = plan

  assert {
    condition     = toset([for rule in output.rules : "${rule.role}:${rule.port_min}" if rule.from == "0.0.0.0/0"]) == toset(["app:80", "app:443"])
    error_message = "Only HTTP and HTTPS of public roles are open to the world."
  }
  assert {
    condition     = alltrue([for rule in output.rules : rule.from == "192.0.2.0/24" if rule.port_min == 22])
    error_message = "SSH is open to operators only."
  }
}

run "inventory_has_every_machine" {
  command = plan

  assert {
    condition     = output.inventory.all.children.data.hosts["amarre-staging-data-1"].ansible_host == "10.42.1.10"
    error_message = "Ansible finds every machine in the group of its role."
  }
}

run "refuses_ssh_for_everybody" {
  command = plan
  variables {
    operators = ["0.0.0.0/0"]
  }
  expect_failures = [var.operators]
}

run "refuses_public_range" {
  command = plan
  variables {
    cidr = "8.8.0.0/20"
  }
  expect_failures = [var.cidr]
}

run "refuses_odd_names" {
  command = plan
  variables {
    environment = "Staging_1"
  }
  expect_failures = [var.environment]
}

run "refuses_tiny_machines" {
  command = plan
  variables {
    roles = { app = { subnet = 0, count = 1, cores = 1, memory_gb = 1 } }
  }
  expect_failures = [var.roles]
}

run "another_role_renumbers_nobody" {
  command = plan
  variables {
    roles = {
      app   = { subnet = 0, count = 2, cores = 4, memory_gb = 8, public = true }
      cache = { subnet = 2, count = 1, cores = 2, memory_gb = 4 }
      data  = { subnet = 1, count = 1, cores = 2, memory_gb = 4, data_gb = 50 }
    }
  }

  assert {
    condition     = output.machines["amarre-staging-data-1"].address == "10.42.1.10"
    error_message = "A role keeps its subnet when another one is added."
  }
}

run "tells_ansible_the_operators" {
  command = plan
  variables {
    operators = ["192.0.2.0/24", "198.51.100.0/24", "192.0.2.0/24"]
  }

  assert {
    condition     = output.inventory.all.vars.base_operators == tolist(["192.0.2.0/24", "198.51.100.0/24"])
    error_message = "The hosts' own firewall lets in the same operators, each once."
  }
}

run "refuses_the_same_subnet_twice" {
  command = plan
  variables {
    roles = {
      app  = { subnet = 0, count = 1, cores = 4, memory_gb = 8 }
      data = { subnet = 0, count = 1, cores = 2, memory_gb = 4 }
    }
  }
  expect_failures = [var.roles]
}

run "refuses_ipv6_operators" {
  command = plan
  variables {
    operators = ["2001:db8::/32"]
  }
  expect_failures = [var.operators]
}

run "refuses_an_address_without_range" {
  command = plan
  variables {
    operators = ["192.0.2.7"]
  }
  expect_failures = [var.operators]
}

run "refuses_a_range_by_another_address" {
  command = plan
  variables {
    operators = ["192.0.2.9/24"]
  }
  expect_failures = [var.operators]
}

run "refuses_ranges_that_are_too_small_or_not_private" {
  command = plan
  variables {
    cidr = "10.0.0.0/4"
  }
  expect_failures = [var.cidr]
}
