#include "driver/metrics/series.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace jenkins_agent {
namespace {

// Sandboxes take milliseconds, agents wait for JVM and controller.
std::vector<double> SandboxBounds() {
  return {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5};
}
std::vector<double> AgentBounds() {
  return {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};
}

std::vector<double> PullBounds() { return {0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900}; }

std::vector<Series> MakeTable() {
  return {
      {"jenkins_agent_up",
       Series::kGauge,
       "",
       {},
       {},
       "1 while the plugin answers its metrics listener; at 0 all other series are missing"},
      {"jenkins_agent_build_info",
       Series::kGauge,
       "version",
       {},
       {},
       "always 1; the version of the driver"},
      {"jenkins_agent_tasks", Series::kGauge, "", {}, {}, "tasks that run, agents and others"},
      {"jenkins_agent_agents",
       Series::kGauge,
       "phase",
       {"waiting_for_jar", "starting", "locating", "handshaking", "connected", "terminated",
        "refused", "wedged", "backing_off", "stopping"},
       {},
       "agents by what they are doing; `connected` is what should be"},
      {"jenkins_agent_starts_total",
       Series::kCounter,
       "result",
       {"started", "refused", "no_room", "failed"},
       {},
       "starts that Nomad asked for; `refused`: the job's options, `no_room`: the host is full"},
      {"jenkins_agent_sandbox_start_seconds",
       Series::kHistogram,
       "phase",
       {"plan", "spawn", "cgroups", "root", "launch"},
       SandboxBounds(),
       "what each part of a sandbox's start took, as in the task's first event"},
      {"jenkins_agent_agent_start_seconds",
       Series::kHistogram,
       "phase",
       {"sandbox", "agent.jar", "JVM", "discovery", "handshake"},
       AgentBounds(),
       "what each part of an agent's way to its first connection took, as in its event"},
      {"jenkins_agent_recoveries_total",
       Series::kCounter,
       "result",
       {"recovered", "failed"},
       {},
       "tasks that were found again after a restart of the plugin"},
      {"jenkins_agent_ends_total",
       Series::kCounter,
       "result",
       {"success", "stopped", "failed", "out_of_memory", "lost"},
       {},
       "tasks that ended; `lost`: their supervisor died"},
      {"jenkins_agent_restarts_total",
       Series::kCounter,
       "reason",
       {"died", "out_of_memory", "hung", "gave_up", "aged", "unknown"},
       {},
       "JVMs that were replaced in place; `hung`: seen from outside, `gave_up`: by its own words"},
      {"jenkins_agent_oom_kills_total",
       Series::kCounter,
       "victim",
       {"agent", "build"},
       {},
       "processes that the kernel killed at a task's memory limit; `agent`: the task's own "
       "program"},
      {"jenkins_agent_thread_limit_crossings_total",
       Series::kCounter,
       "",
       {},
       {},
       "times that an agent's task came to `health.thread_limit`"},
      {"jenkins_agent_dropped_log_bytes_total",
       Series::kCounter,
       "",
       {},
       {},
       "bytes of output that were dropped because nobody read the log or the disk was full"},
      {"jenkins_agent_threads", Series::kGauge, "", {}, {}, "processes and threads of all tasks"},
      {"jenkins_agent_threads_limit",
       Series::kGauge,
       "",
       {},
       {},
       "how many they may have together, the sum of `pids_limit`"},
      {"jenkins_agent_threads_ratio_max",
       Series::kGauge,
       "",
       {},
       {},
       "of the task that is nearest to its `pids_limit`: used / limit"},
      {"jenkins_agent_memory_bytes",
       Series::kGauge,
       "",
       {},
       {},
       "memory of all tasks without page cache that nobody uses"},
      {"jenkins_agent_memory_limit_bytes",
       Series::kGauge,
       "",
       {},
       {},
       "the sum of their hard limits"},
      {"jenkins_agent_memory_ratio_max",
       Series::kGauge,
       "",
       {},
       {},
       "of the task that is nearest to its limit: used / limit"},
      {"jenkins_agent_cpu_throttled_seconds_total",
       Series::kCounter,
       "",
       {},
       {},
       "for how long `cpu_hard_limit` held tasks back, all together, from one scrape to the next"},
      {"jenkins_agent_stalled_seconds_total",
       Series::kCounter,
       "resource",
       {"cpu", "memory", "io"},
       {},
       "for how long some process of a task stood still for want of it (PSI), all tasks together; "
       "0 on cgroup v1"},
      {"jenkins_agent_fingerprint_changes_total",
       Series::kCounter,
       "",
       {},
       {},
       "times that health or attributes of the node changed; each makes Nomad look at jobs anew"},
      {"jenkins_agent_image_pulls_total",
       Series::kCounter,
       "result",
       {"pulled", "unchanged", "failed", "given_up"},
       {},
       "pulls of images for tasks and in advance, each once however many waited; `unchanged`: "
       "asked for, and all of it was here"},
      {"jenkins_agent_image_pull_seconds",
       Series::kHistogram,
       "",
       {},
       PullBounds(),
       "what each pull took that fetched something"},
      {"jenkins_agent_image_pulled_bytes_total",
       Series::kCounter,
       "",
       {},
       {},
       "bytes of layers that were fetched, compressed as they came"},
      {"jenkins_agent_images",
       Series::kGauge,
       "",
       {},
       {},
       "images that are kept, as of the last look at the store, at least once a minute"},
      {"jenkins_agent_image_store_bytes",
       Series::kGauge,
       "",
       {},
       {},
       "what their layers take unpacked, each counted once"},
      {"jenkins_agent_images_removed_total",
       Series::kCounter,
       "result",
       {"removed", "failed"},
       {},
       "images that `images.gc` removed"},
  };
}

const char* NameOf(Series::Type type) {
  switch (type) {
    case Series::kGauge:
      return "gauge";
    case Series::kCounter:
      return "counter";
    case Series::kHistogram:
      return "histogram";
  }
  return "";
}

std::string LabelText(const Series& series) {
  if (series.label.empty()) return "–";
  if (series.values.empty()) return absl::StrCat("`", series.label, "`");
  return absl::StrCat("`", series.label, "`: ", absl::StrJoin(series.values, ", "));
}

}  // namespace

const std::vector<Series>& SeriesTable() {
  static const auto& table = *new std::vector<Series>(MakeTable());
  return table;
}

const Series& SeriesOf(Metric metric) { return SeriesTable()[static_cast<size_t>(metric)]; }

std::string MetricsMarkdown() {
  std::string table = "| series | type | label | meaning |\n|---|---|---|---|\n";
  for (const Series& series : SeriesTable()) {
    absl::StrAppend(&table, "| `", series.name, "` | ", NameOf(series.type), " | ",
                    LabelText(series), " | ", series.help, " |\n");
  }
  return table;
}

}  // namespace jenkins_agent
