// What scripts/bench can be asked for. Each needs root, adds its figures and cleans up.
#pragma once

#include "absl/status/status.h"
#include "tests/bench/report.h"

namespace jenkins_agent::bench {

struct StartOptions {
  int runs = 30;  // of each variant, alternated
};
absl::Status BenchStart(const StartOptions& options, Report& report);

absl::Status BenchMemory(Report& report);

struct DensityOptions {
  int tasks = 500;
  int cycles = 200;
  int seconds = 60;  // at rest, to see the CPU time
};
absl::Status BenchDensity(const DensityOptions& options, Report& report);

struct RecoverOptions {
  int tasks = 100;
  int rounds = 3;
};
absl::Status BenchRecover(const RecoverOptions& options, Report& report);

struct NeighbourOptions {
  int seconds = 10;  // of each load
};
absl::Status BenchNeighbour(const NeighbourOptions& options, Report& report);

}  // namespace jenkins_agent::bench
