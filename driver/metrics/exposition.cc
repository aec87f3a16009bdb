#include "driver/metrics/exposition.h"

#include <limits>

#include "driver/metrics/series.h"

namespace jenkins_agent {
namespace {

prometheus::MetricType TypeOf(Series::Type type) {
  switch (type) {
    case Series::kCounter:
      return prometheus::MetricType::Counter;
    case Series::kHistogram:
      return prometheus::MetricType::Histogram;
    case Series::kGauge:
      break;
  }
  return prometheus::MetricType::Gauge;
}

prometheus::MetricFamily EmptyFamily(const Series& series) {
  prometheus::MetricFamily family;
  family.name = series.name;
  family.help = series.help;
  family.type = TypeOf(series.type);
  return family;
}

prometheus::MetricFamily Up(double value) {
  prometheus::MetricFamily family = EmptyFamily(SeriesOf(Metric::kUp));
  family.metric.emplace_back().gauge.value = value;
  return family;
}

prometheus::ClientMetric::Histogram HistogramOf(const Series& series,
                                                const pb::MetricSample& sample) {
  prometheus::ClientMetric::Histogram histogram;
  histogram.sample_sum = sample.value();
  for (int i = 0; i < sample.buckets_size(); ++i) {
    const auto place = static_cast<size_t>(i);
    histogram.sample_count += sample.buckets(i);
    histogram.bucket.push_back(
        {histogram.sample_count, place < series.bounds.size()
                                     ? series.bounds[place]
                                     : std::numeric_limits<double>::infinity()});
  }
  return histogram;
}

prometheus::ClientMetric MetricOf(const Series& series, const pb::MetricSample& sample) {
  prometheus::ClientMetric metric;
  if (!series.label.empty()) metric.label.push_back({series.label, sample.label_value()});
  switch (series.type) {
    case Series::kGauge:
      metric.gauge.value = sample.value();
      break;
    case Series::kCounter:
      metric.counter.value = sample.value();
      break;
    case Series::kHistogram:
      metric.histogram = HistogramOf(series, sample);
      break;
  }
  return metric;
}

}  // namespace

std::vector<prometheus::MetricFamily> NoAnswer() { return {Up(0)}; }

std::vector<prometheus::MetricFamily> Families(const pb::MetricsSnapshot& snapshot) {
  std::vector<prometheus::MetricFamily> families = {Up(1)};
  for (const pb::MetricFamily& filled : snapshot.families()) {
    if (filled.series() >= SeriesTable().size()) continue;
    const Series& series = SeriesTable()[filled.series()];
    prometheus::MetricFamily& family = families.emplace_back(EmptyFamily(series));
    for (const pb::MetricSample& sample : filled.samples()) {
      family.metric.push_back(MetricOf(series, sample));
    }
  }
  return families;
}

}  // namespace jenkins_agent
