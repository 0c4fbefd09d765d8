"""How cabrank's figures are taken: each script measures ours and what stands beside it in one run on one machine."""
