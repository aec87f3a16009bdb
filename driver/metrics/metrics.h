// What the plugin counts and measures, for its metrics listener. Counts begin at 0 with each plugin
// process, as Prometheus expects of a restarted program.
//
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "driver/base/mutex.h"
#include "driver/metrics/series.h"
#include "proto/metrics.pb.h"

namespace jenkins_agent {

class Metrics {
 public:
  // Every label value of the table begins with 0: a series that is missing looks like one that
  // nobody exports.
  Metrics();

  // A value of the label that is not in the table counts nothing.
  void Count(Metric counter, absl::string_view label_value = "", double by = 1)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Set(Metric gauge, absl::string_view label_value, double value) ABSL_LOCKS_EXCLUDED(mutex_);
  void Observe(Metric histogram, absl::string_view label_value, double seconds)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // All of it; `scrape` is left at 0.
  pb::MetricsSnapshot Snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  struct Value {
    double value = 0;
    std::vector<uint64_t> buckets;
  };
  Value* Find(Metric metric, absl::string_view label_value) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable Mutex mutex_;
  // By place in the table, then by label value in the table's order.
  std::vector<std::vector<std::pair<std::string, Value>>> values_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace jenkins_agent
