// scripts/bench runs this.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "tests/bench/report.h"
#include "tests/bench/scenarios.h"

int main(int argc, char** argv) {
  using namespace jenkins_agent::bench;
  CLI::App app("Figures of the driver, beside those of its peers.", "scripts/bench");
  app.fallthrough();  // --json also after the name
  bool json = false;
  app.add_flag("--json", json, "one JSON line per figure");
  StartOptions start_options;
  CLI::App& start = *app.add_subcommand("start", "StartTask to the payload's first instruction");
  start.add_option("--runs", start_options.runs, "of each variant")->capture_default_str();
  const CLI::App& memory = *app.add_subcommand("memory", "supervisor and pid 1 of resting tasks");
  DensityOptions density_options;
  CLI::App& density = *app.add_subcommand("density", "many tasks on one node");
  density.add_option("--tasks", density_options.tasks, "at rest")->capture_default_str();
  density.add_option("--seconds", density_options.seconds, "at rest")->capture_default_str();
  density.add_option("--together", density_options.together, "started at once")
      ->capture_default_str();
  density.add_option("--most", density_options.most, "in the end")->capture_default_str();
  RecoverOptions recover_options;
  CLI::App& recover = *app.add_subcommand("recover", "the plugin is killed and comes back");
  recover.add_option("--tasks", recover_options.tasks, "at rest")->capture_default_str();
  recover.add_option("--rounds", recover_options.rounds, "of each driver")->capture_default_str();
  app.add_option("--peer", recover_options.peer, "file of the trivial Go driver, for `recover`");
  NomadOptions nomad_options;
  CLI::App& nomad = *app.add_subcommand("nomad", "a real Nomad agent: our driver, exec, raw_exec");
  nomad.add_option("--runs", nomad_options.runs, "single tasks")->capture_default_str();
  nomad.add_option("--rounds", nomad_options.rounds, "batches of 50")->capture_default_str();
  ConnectOptions connect_options;
  CLI::App& connect = *app.add_subcommand("connect", "StartTask to an agent's `Connected`");
  connect.add_option("--runs", connect_options.runs, "of each variant")->capture_default_str();
  ExplainOptions explain_options;
  CLI::App& explain = *app.add_subcommand("explain", "the command `explain` on a large cluster");
  explain.add_option("--runs", explain_options.runs, "of the command")->capture_default_str();
  explain.add_option("--nodes", explain_options.nodes, "with 10 allocations each")
      ->capture_default_str();
  ImagesOptions images_options;
  CLI::App& images = *app.add_subcommand("images", "pulls of an image: ours, podman, containerd");
  images.add_option("--runs", images_options.runs, "of each, in turn")->capture_default_str();
  HealthOptions health_options;
  CLI::App& health = *app.add_subcommand("health", "many agents watched from outside; one hangs");
  health.add_option("--agents", health_options.agents, "stand-ins")->capture_default_str();
  health.add_option("--seconds", health_options.seconds, "at rest")->capture_default_str();
  NeighbourOptions neighbour_options;
  CLI::App& neighbour = *app.add_subcommand("neighbour",
                                            "a timer's lateness beside a task that "
                                            "takes all it can get");
  neighbour.add_option("--seconds", neighbour_options.seconds, "of each load")
      ->check(CLI::Range(1, 80))
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (::geteuid() != 0) {
    std::fprintf(stderr, "bench: needs root\n");
    return 2;
  }

  // Without a choice: everything.
  const bool all = app.get_subcommands().empty();
  Report report(json);
  absl::Status status;
  if (all || memory) status.Update(BenchMemory(report));
  if (all || recover) status.Update(BenchRecover(recover_options, report));
  if (all || density) status.Update(BenchDensity(density_options, report));
  if (all || health) status.Update(BenchHealth(health_options, report));
  if (all || nomad) status.Update(BenchNomad(nomad_options, report));
  if (all || connect) status.Update(BenchConnect(connect_options, report));
  if (all || images) status.Update(BenchImages(images_options, report));
  if (all || explain) status.Update(BenchExplain(explain_options, report));
  // Both hide a mount: last.
  if (all || neighbour) status.Update(BenchNeighbour(neighbour_options, report));
  if (all || start) status.Update(BenchStart(start_options, report));
  const bool met = report.Finish();
  if (!status.ok()) std::fprintf(stderr, "bench: %s\n", std::string(status.message()).c_str());
  return !status.ok() ? 1 : met ? 0 : 3;
}
