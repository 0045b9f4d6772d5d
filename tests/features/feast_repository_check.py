"""Run by `test_feast_definitions.py` in a process of its own: `feast apply` in a folder, and one online retrieval."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
from feast import FeatureStore


def main(repository: Path) -> None:
    subprocess.run([Path(sys.executable).with_name("feast"), "apply"], cwd=repository, check=True, stdout=sys.stderr)
    store = FeatureStore(repo_path=str(repository))
    views = [view.name for view in (*store.list_feature_views(), *store.list_on_demand_feature_views())]
    print("views", *views)
    print("services", *[service.name for service in store.list_feature_services()])
    person, jobs = (pd.read_parquet(f"{name}.parquet") for name in ("person", "jobs"))
    for name in ("resume_text", "city", "region", "country"):
        person[name] = ""
    store.write_to_online_store("candidate_profile", person)
    store.write_to_online_store("job_profile", jobs)
    asked = [{"candidate_id": "c", "job_id": job, "usual_salary": 40_000.0} for job in jobs["job_id"]]
    features = [f"pair_fit:{name}" for name in ("distance_km", "skill_share", "salary_to_usual")]
    print("fit", *store.get_online_features(features=features, entity_rows=asked).to_dict()["distance_km"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
