// Nothing is built here; Cargo wants a target to exist. See README.md.
