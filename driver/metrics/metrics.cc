#include "driver/metrics/metrics.h"

#include <algorithm>

namespace jenkins_agent {

Metrics::Metrics() {
  MutexLock lock(mutex_);
  for (const Series& series : SeriesTable()) {
    auto& values = values_.emplace_back();
    const size_t buckets = series.type == Series::kHistogram ? series.bounds.size() + 1 : 0;
    for (const std::string& value : series.values) {
      values.push_back({value, {0, std::vector<uint64_t>(buckets)}});
    }
    if (series.label.empty()) values.push_back({"", {0, std::vector<uint64_t>(buckets)}});
  }
}

Metrics::Value* Metrics::Find(Metric metric, absl::string_view label_value) {
  for (auto& [value, found] : values_[static_cast<size_t>(metric)]) {
    if (value == label_value) return &found;
  }
  return nullptr;
}

void Metrics::Count(Metric counter, absl::string_view label_value, double by) {
  MutexLock lock(mutex_);
  if (Value* value = Find(counter, label_value); value != nullptr) value->value += by;
}

void Metrics::Set(Metric gauge, absl::string_view label_value, double value) {
  MutexLock lock(mutex_);
  const Series& series = SeriesOf(gauge);
  auto& values = values_[static_cast<size_t>(gauge)];
  if (!series.label.empty() && series.values.empty() && values.empty()) {
    values.push_back({std::string(label_value), {}});
  }
  if (Value* found = Find(gauge, label_value); found != nullptr) found->value = value;
}

void Metrics::Observe(Metric histogram, absl::string_view label_value, double seconds) {
  MutexLock lock(mutex_);
  Value* value = Find(histogram, label_value);
  if (value == nullptr) return;
  const std::vector<double>& bounds = SeriesOf(histogram).bounds;
  const size_t bucket = std::lower_bound(bounds.begin(), bounds.end(), seconds) - bounds.begin();
  ++value->buckets[bucket];
  value->value += seconds;
}

pb::MetricsSnapshot Metrics::Snapshot() const {
  pb::MetricsSnapshot snapshot;
  MutexLock lock(mutex_);
  for (size_t place = 0; place < values_.size(); ++place) {
    if (place == static_cast<size_t>(Metric::kUp)) continue;  // the listener's own word
    pb::MetricFamily& family = *snapshot.add_families();
    family.set_series(static_cast<uint32_t>(place));
    for (const auto& [label_value, value] : values_[place]) {
      pb::MetricSample& sample = *family.add_samples();
      sample.set_label_value(label_value);
      sample.set_value(value.value);
      for (const uint64_t count : value.buckets) sample.add_buckets(count);
    }
  }
  return snapshot;
}

}  // namespace jenkins_agent
