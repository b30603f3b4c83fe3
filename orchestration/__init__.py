"""Dagster's view of the pipeline that ``dvc.yaml`` states."""
