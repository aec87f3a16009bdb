// The table of series, what is counted by it, and who else must know its names.
#include "driver/metrics/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "driver/base/file.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSubsetOf;

const pb::MetricFamily& FamilyOf(const pb::MetricsSnapshot& snapshot, Metric metric) {
  for (const pb::MetricFamily& family : snapshot.families()) {
    if (family.series() == static_cast<uint32_t>(metric)) return family;
  }
  ADD_FAILURE() << SeriesOf(metric).name << " is missing";
  return pb::MetricFamily::default_instance();
}

double ValueOf(const Metrics& metrics, Metric metric, const std::string& label_value) {
  const pb::MetricsSnapshot snapshot = metrics.Snapshot();
  for (const pb::MetricSample& sample : FamilyOf(snapshot, metric).samples()) {
    if (sample.label_value() == label_value) return sample.value();
  }
  return -1;
}

// Names of series in a text, without what Prometheus adds to a histogram's.
std::set<std::string> NamesIn(absl::string_view text) {
  std::set<std::string> names;
  constexpr absl::string_view kPrefix = "jenkins_agent_";
  for (size_t at = text.find(kPrefix); at != text.npos; at = text.find(kPrefix, at)) {
    const size_t end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_", at);
    absl::string_view name = text.substr(at, end - at);
    at += name.size();
    for (const char* suffix : {"_bucket", "_sum", "_count"}) {
      if (absl::ConsumeSuffix(&name, suffix)) break;
    }
    if (name.size() > kPrefix.size()) names.emplace(name);
  }
  return names;
}

std::set<std::string> NamesOfTheTable() {
  std::set<std::string> names;
  for (const Series& series : SeriesTable()) names.insert(series.name);
  return names;
}

TEST(SeriesTableTest, IsInTheOrderOfItsEnumeration) {
  EXPECT_EQ(SeriesOf(Metric::kUp).name, "jenkins_agent_up");
  EXPECT_EQ(SeriesOf(Metric::kAgents).name, "jenkins_agent_agents");
  EXPECT_EQ(SeriesOf(Metric::kSandboxStart).name, "jenkins_agent_sandbox_start_seconds");
  EXPECT_EQ(SeriesOf(Metric::kOomKills).name, "jenkins_agent_oom_kills_total");
  EXPECT_EQ(SeriesOf(Metric::kMemoryRatioMax).name, "jenkins_agent_memory_ratio_max");
  EXPECT_EQ(SeriesOf(Metric::kImages).name, "jenkins_agent_images");
  EXPECT_EQ(SeriesOf(Metric::kImagesRemoved).name, "jenkins_agent_images_removed_total");
  EXPECT_EQ(static_cast<size_t>(Metric::kImagesRemoved) + 1, SeriesTable().size());
  EXPECT_EQ(SeriesOf(Metric::kFingerprintChanges).name, "jenkins_agent_fingerprint_changes_total");
}

TEST(SeriesTableTest, FollowsPrometheusHabits) {
  EXPECT_EQ(NamesOfTheTable().size(), SeriesTable().size()) << "a name is there twice";
  for (const Series& series : SeriesTable()) {
    EXPECT_EQ(series.type == Series::kCounter, absl::EndsWith(series.name, "_total"))
        << series.name;
    EXPECT_EQ(series.type == Series::kHistogram, !series.bounds.empty()) << series.name;
    EXPECT_TRUE(std::is_sorted(series.bounds.begin(), series.bounds.end())) << series.name;
    EXPECT_FALSE(absl::StrContains(series.help, '\n')) << series.name;
  }
}

// When this fails: put the output of build/test/driver/metrics/metrics_reference into README.md.
TEST(SeriesTableTest, IsShownInTheReadme) {
  ASSERT_OK_AND_ASSIGN(const std::string readme, ReadFile(absl::StrCat(SOURCE_DIR, "/README.md")));
  EXPECT_THAT(readme, HasSubstr(MetricsMarkdown()));
}

TEST(SeriesTableTest, TheDashboardUsesAllOfIt) {
  ASSERT_OK_AND_ASSIGN(const std::string dashboard,
                       ReadFile(absl::StrCat(SOURCE_DIR, "/examples/grafana-dashboard.json")));
  EXPECT_THAT(NamesIn(dashboard), NamesOfTheTable());
}

TEST(SeriesTableTest, TheAlertsUseNothingElse) {
  ASSERT_OK_AND_ASSIGN(const std::string alerts,
                       ReadFile(absl::StrCat(SOURCE_DIR, "/examples/prometheus-alerts.yml")));
  EXPECT_THAT(NamesIn(alerts), IsSubsetOf(NamesOfTheTable()));
  EXPECT_GT(NamesIn(alerts).size(), 5u);
}

TEST(MetricsTest, EveryLabelValueBeginsWithZero) {
  const Metrics metrics;
  EXPECT_EQ(ValueOf(metrics, Metric::kRestarts, "hung"), 0);
  EXPECT_EQ(ValueOf(metrics, Metric::kTasks, ""), 0);
  const pb::MetricsSnapshot snapshot = metrics.Snapshot();
  EXPECT_EQ(FamilyOf(snapshot, Metric::kAgents).samples_size(), 10);
}

TEST(MetricsTest, CountsAndSetsByLabel) {
  Metrics metrics;
  metrics.Count(Metric::kRestarts, "hung");
  metrics.Count(Metric::kRestarts, "hung");
  metrics.Count(Metric::kDroppedLogBytes, "", 700);
  metrics.Set(Metric::kAgents, "connected", 3);
  metrics.Set(Metric::kBuildInfo, "1.2.3", 1);
  EXPECT_EQ(ValueOf(metrics, Metric::kRestarts, "hung"), 2);
  EXPECT_EQ(ValueOf(metrics, Metric::kRestarts, "died"), 0);
  EXPECT_EQ(ValueOf(metrics, Metric::kDroppedLogBytes, ""), 700);
  EXPECT_EQ(ValueOf(metrics, Metric::kAgents, "connected"), 3);
  EXPECT_EQ(ValueOf(metrics, Metric::kBuildInfo, "1.2.3"), 1);
}

TEST(MetricsTest, AnUnknownLabelValueMakesNoSeries) {
  Metrics metrics;
  const size_t before = metrics.Snapshot().ByteSizeLong();
  metrics.Count(Metric::kRestarts, "a job's own text");
  metrics.Set(Metric::kAgents, "a job's own text", 1);
  metrics.Observe(Metric::kAgentStart, "a job's own text", 1);
  EXPECT_EQ(metrics.Snapshot().ByteSizeLong(), before);
}

TEST(MetricsTest, AnObservationIsInTheBucketOfItsSize) {
  Metrics metrics;
  const std::vector<double>& bounds = SeriesOf(Metric::kSandboxStart).bounds;
  metrics.Observe(Metric::kSandboxStart, "root", bounds[0]);  // a bound belongs to its bucket
  metrics.Observe(Metric::kSandboxStart, "root", bounds[1] * 0.9);
  metrics.Observe(Metric::kSandboxStart, "root", bounds.back() + 1);
  const pb::MetricsSnapshot snapshot = metrics.Snapshot();
  for (const pb::MetricSample& sample : FamilyOf(snapshot, Metric::kSandboxStart).samples()) {
    ASSERT_EQ(sample.buckets_size(), static_cast<int>(bounds.size()) + 1);
    if (sample.label_value() != "root") continue;
    EXPECT_EQ(sample.buckets(0), 1u);
    EXPECT_EQ(sample.buckets(1), 1u);
    EXPECT_EQ(sample.buckets(sample.buckets_size() - 1), 1u);
    EXPECT_DOUBLE_EQ(sample.value(), bounds[0] + bounds[1] * 0.9 + bounds.back() + 1);
  }
}

}  // namespace
}  // namespace jenkins_agent
