"""The pipeline of ``dvc.yaml`` as Dagster assets, checks, a schedule and a sensor."""
