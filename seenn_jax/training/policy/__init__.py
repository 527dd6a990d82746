"""SEENN-II: training a policy that chooses each sample's timesteps beforehand."""
