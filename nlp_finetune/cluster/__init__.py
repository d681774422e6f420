"""Running on many machines: what a machine is fit for, whether processes find each other, job scripts."""
