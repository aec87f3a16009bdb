// What scripts/bench can be asked for. Each needs root, adds its figures and cleans up.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace jenkins_agent::bench {

struct StartOptions {
  int runs = 30;  // of each variant, alternated
};
absl::Status BenchStart(const StartOptions& options, Report& report);

absl::Status BenchMemory(Report& report);

struct NomadOptions {
  int runs = 20;   // single tasks of each driver, alternated
  int rounds = 3;  // batches of each driver
};
absl::Status BenchNomad(const NomadOptions& options, Report& report);

struct ConnectOptions {
  int runs = 10;  // of each variant, alternated
};
absl::Status BenchConnect(const ConnectOptions& options, Report& report);

struct ExplainOptions {
  int runs = 10;
  int nodes = 5000;  // with 10 allocations each
};
absl::Status BenchExplain(const ExplainOptions& options, Report& report);

struct ImagesOptions {
  int runs = 3;  // of each program, in turn
};
absl::Status BenchImages(const ImagesOptions& options, Report& report);

struct DensityOptions {
  int tasks = 500;    // at rest
  int seconds = 60;   // of their rest, to see the CPU time
  int together = 50;  // more, whose starts come at once
  int most = 1000;    // in the end
};
absl::Status BenchDensity(const DensityOptions& options, Report& report);

struct RecoverOptions {
  int tasks = 100;
  int rounds = 5;
  std::string peer = {};  // file of the driver to compare with; empty: none
};
absl::Status BenchRecover(const RecoverOptions& options, Report& report);

struct HealthOptions {
  int agents = 200;
  int seconds = 60;  // of their rest, to see the CPU time
};
absl::Status BenchHealth(const HealthOptions& options, Report& report);

struct NeighbourOptions {
  int seconds = 20;  // of each load; ticker.c keeps the ticks of 80
};
absl::Status BenchNeighbour(const NeighbourOptions& options, Report& report);

}  // namespace jenkins_agent::bench
