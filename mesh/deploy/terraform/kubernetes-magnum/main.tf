# A Kubernetes that OpenStack manages (Magnum), with nodes for the overlay production.
locals {
  workers = [for machine in values(var.machines) : machine if machine.role == "workers"]
}

resource "openstack_containerinfra_cluster_v1" "mesh" {
  name                = var.prefix
  cluster_template_id = var.template_id
  keypair             = var.key_pair
  master_count        = 3
  node_count          = length(local.workers)
  flavor              = var.worker_flavor
  merge_labels        = true

  labels = {
    auto_healing_enabled          = "true"
    auto_scaling_enabled          = "true"
    min_node_count                = tostring(length(local.workers))
    max_node_count                = tostring(length(local.workers) * 2)
    cloud_provider_enabled        = "true"
    cgroup_driver                 = "systemd"
    selinux_mode                  = "enforcing"
    calico_ipv4pool               = "10.100.0.0/16"
    kube_dashboard_enabled        = "false"
    prometheus_monitoring         = "false"
    ingress_controller            = ""
    master_lb_floating_ip_enabled = "true"
  }

  lifecycle {
    prevent_destroy = true
    # The autoscaler changes it; the next apply must not take its nodes away.
    ignore_changes = [node_count]
  }
}
