output "kubeconfig" {
  description = "Credentials of the cluster's administrator."
  value       = module.cluster.kubeconfig
  sensitive   = true
}
