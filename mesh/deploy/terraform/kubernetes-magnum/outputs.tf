output "kubeconfig" {
  description = "Credentials of the cluster's administrator."
  value       = openstack_containerinfra_cluster_v1.mesh.kubeconfig.raw_config
  sensitive   = true
}

output "api" {
  description = "Address of the API server."
  value       = openstack_containerinfra_cluster_v1.mesh.api_address
}
