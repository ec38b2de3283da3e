"""Writes what starts a Ray cluster somewhere: manifests of KubeRay, of Ray's launcher, Slurm and compose."""
