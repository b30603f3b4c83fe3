"""MLflow: the runs of trainings, versions of the registered model, and who is the champion."""
