# One line a recipe; .ci/run does the same without just.

# Format, lints, documentation, the walls between rooms.
check: && fuzz-check purity
    cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings && RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# What fuzzing compiles: a workspace of its own, which no other recipe looks at.
fuzz-check:
    cargo clippy --manifest-path cluster-tests/fuzz/Cargo.toml --target-dir target --locked -- -D warnings

# The pure rooms stay pure, and there is one crypto provider.
purity:
    .ci/purity

# Every test there is.
test:
    cargo test --workspace --locked

# Whole-cluster stories: all, or one by its file name.
cluster-test story="*":
    cargo test -p cluster-tests --locked --test '{{story}}'

# The promises of the cluster's cache in ten thousand orders of events, and those of the config log in a thousand stories of
# what goes wrong; with a seed, the two stories of that one.
sim seed="" log_seeds="1000":
    SHOAL_SIM_SEED={{seed}} cargo test -p shoal-cache --locked --test simulation -- --nocapture
    SHOAL_SIM_SEED={{seed}} SHOAL_SIM_SEEDS={{log_seeds}} cargo test -p shoal-configlog --locked --lib simulation::promises -- --nocapture

# What the gossip of so many nodes costs, and how soon they know of a death, on a clock of its own. `a_death`: of so many deaths as
# SHOAL_SIM_DEATHS says; `who_stands`: who stands still for SHOAL_SIM_STILL_MS, over SHOAL_SIM_MINUTES.
sim-gossip nodes="500" lost_percent="0" what="many_nodes":
    SHOAL_SIM_NODES={{nodes}} SHOAL_SIM_LOSS={{lost_percent}} cargo test -p shoal-cluster --locked --lib gossip::simulation::{{what}} -- --nocapture

# So many processes join at once, change and die: more than a test run does. Two CPUs bear about eight debug builds each.
many nodes="50":
    SHOAL_MANY_NODES={{nodes}} cargo test -p cluster-tests --locked --test many_nodes_are_one_cluster -- --nocapture

# What a tool can put right by itself.
fix:
    cargo fmt --all && cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# Three nodes on loopback with demo origins.
dev *arguments:
    cargo run --release -- dev {{arguments}}

# Coverage-guided fuzzing on stable Rust: one target of cluster-tests/fuzz/targets, or each in turn.
fuzz target="all" seconds="60":
    cluster-tests/fuzz/fuzz {{target}} {{seconds}}

# Three nodes at 70 % of saturation under everything at once, and whether they stay as they are; exit code 1 = they do not.
soak minutes="60" binary="target/release/shoal":
    cargo build --release --workspace --bin shoal --bin soak && SHOAL_BIN={{binary}} target/release/soak {{minutes}}

# One node under each flood in turn, and how somebody else fares beside it; exit code 1 = badly. `rate`: of new connections
# a second that an address may have.
floods seconds="4" binary="target/release/shoal" name="all" rate="":
    cargo build --release --workspace --bin shoal --bin floods && SHOAL_BIN={{binary}} target/release/floods {{seconds}} {{quote(name)}} {{rate}}

# Side by side with nginx, haproxy, varnish and caddy; figure = CPU of the proxy per request. `bench cache ROW…`: what the
# cache costs and how long it takes, on one node and on three, beside nginx, haproxy and varnish; `bench control`: what changes
# of the configuration cost, beside etcd (cluster-tests/README.md).
bench *scenarios:
    cargo build --profile dist --locked -p shoal && cluster-tests/bench/side_by_side {{scenarios}}

# A container image, `shoal`: one static binary and nothing else.
image arch=arch():
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile dist --locked -p shoal --target {{arch}}-unknown-linux-gnu && podman build --file deploy/Dockerfile --tag shoal target/{{arch}}-unknown-linux-gnu/dist
