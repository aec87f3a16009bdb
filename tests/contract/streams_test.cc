// TaskStats, TaskEvents, Fingerprint and ExecTaskStreaming (nomad-driver-protocol.md 5.9, 5.10):
// what several streams at once do to each other.
#include <filesystem>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/file.h"
#include "tests/contract/task_test.h"
#include "tests/support/wait_for.h"

namespace jenkins_agent {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

class Streams : public TaskTest {
 protected:
  struct StatsStream {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<nomad::TaskStatsResponse>> reader;
  };

  std::unique_ptr<StatsStream> Stats(const std::string& id, std::chrono::milliseconds interval) {
    nomad::TaskStatsRequest request;
    request.set_task_id(id);
    request.mutable_collection_interval()->set_seconds(interval.count() / 1000);
    request.mutable_collection_interval()->set_nanos(interval.count() % 1000 * 1'000'000);
    auto stream = std::make_unique<StatsStream>();
    stream->context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    stream->reader = host_.plugin().driver().TaskStats(&stream->context, request);
    return stream;
  }
  // A number of /proc/<plugin>/status.
  int64_t PluginStatus(const std::string& field) {
    const std::string text =
        ReadFile(absl::StrCat("/proc/", host_.plugin().pid(), "/status")).value_or("");
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      const std::vector<absl::string_view> words =
          absl::StrSplit(line, absl::ByAnyChar(": \t"), absl::SkipEmpty());
      int64_t number = 0;
      if (words.size() >= 2 && words[0] == field && absl::SimpleAtoi(words[1], &number)) {
        return number;
      }
    }
    ADD_FAILURE() << "no " << field << " in status";
    return 0;
  }
  // An agent whose controller is not there: the driver says so, again and again.
  nomad::TaskConfig WithoutController() {
    nomad::TaskConfig config = host_.Config(kId, "");
    // { "agent": { "url": "http://127.0.0.1:1/", "name": "a" } }
    config.set_msgpack_driver_config(
        "\x81\xa5"
        "agent\x82\xa3url\xb3http://127.0.0.1:1/\xa4name\xa1"
        "a");
    (*config.mutable_env())["JENKINS_SECRET"] = "s3cret";
    return config;
  }
  void StartWithoutController() {
    const grpc::Status started = TryStart(WithoutController());
    if (absl::StrContains(started.error_message(), "no JDK")) GTEST_SKIP() << "needs a JDK";
    ASSERT_THAT(started, Succeeded());
  }
  size_t PluginDescriptors() {
    const std::filesystem::directory_iterator fds(
        absl::StrCat("/proc/", host_.plugin().pid(), "/fd"));
    return std::distance(begin(fds), end(fds));
  }
};

int64_t Milliseconds(const google::protobuf::Timestamp& time) {
  return time.seconds() * 1000 + time.nanos() / 1'000'000;
}

TEST_F(Streams, StatsNameWhatWasMeasuredAndNothingElse) {
  // One busy core, and memory that is really used.
  Start("while :; do :; done");
  const auto stream = Stats(kId, std::chrono::milliseconds(500));
  nomad::TaskStatsResponse first;
  ASSERT_TRUE(stream->reader->Read(&first));
  EXPECT_EQ(first.stats().id(), kId);
  EXPECT_TRUE(first.stats().has_timestamp());
  // A percentage needs two looks.
  const auto& before = first.stats().agg_resource_usage().cpu();
  EXPECT_THAT(before.measured_fields(), Not(Contains(nomad::CPUUsage::PERCENT)));
  EXPECT_EQ(before.percent(), 0);

  nomad::TaskStatsResponse second;
  ASSERT_TRUE(stream->reader->Read(&second));
  const auto& cpu = second.stats().agg_resource_usage().cpu();
  EXPECT_THAT(cpu.measured_fields(), Contains(nomad::CPUUsage::PERCENT));
  EXPECT_GT(cpu.percent(), 1);
  EXPECT_LT(cpu.percent(), 150);
  // Nomad did not tell this plugin how fast its cores are.
  EXPECT_THAT(cpu.measured_fields(), Not(Contains(nomad::CPUUsage::TOTAL_TICKS)));
  EXPECT_EQ(cpu.total_ticks(), 0);

  const auto& memory = second.stats().agg_resource_usage().memory();
  const std::set<int> measured(memory.measured_fields().begin(), memory.measured_fields().end());
  EXPECT_EQ(measured.size(), static_cast<size_t>(memory.measured_fields_size())) << "named twice";
  EXPECT_EQ(measured.count(nomad::MemoryUsage::KERNEL_MAX_USAGE), 0u);
  EXPECT_EQ(memory.kernel_max_usage(), 0u);
  EXPECT_EQ(measured.count(nomad::MemoryUsage::USAGE), 1u);
  EXPECT_GT(memory.usage(), 0u);
  EXPECT_GE(Milliseconds(second.stats().timestamp()) - Milliseconds(first.stats().timestamp()),
            490);
  stream->context.TryCancel();
}

TEST_F(Streams, StatsTellWhatTheHardLimitHeldBack) {
  nomad::TaskConfig config = host_.Config(kId, "while :; do :; done");
  std::string options = config.msgpack_driver_config();
  options[0]++;  // a map of three
  config.set_msgpack_driver_config(options +
                                   "\xae"
                                   "cpu_hard_limit\xc3");
  config.mutable_resources()->mutable_linux_resources()->set_percentticks(0.05);
  Start(config);
  const auto stream = Stats(kId, std::chrono::milliseconds(100));
  nomad::TaskStatsResponse sample;
  const auto throttled = [&] {
    if (!stream->reader->Read(&sample)) return false;
    const auto& cpu = sample.stats().agg_resource_usage().cpu();
    return cpu.throttled_periods() > 0 && cpu.throttled_time() > 0;
  };
  ASSERT_TRUE(WaitFor(throttled));
  EXPECT_THAT(sample.stats().agg_resource_usage().cpu().measured_fields(),
              IsSupersetOf({nomad::CPUUsage::THROTTLED_PERIODS, nomad::CPUUsage::THROTTLED_TIME}));
  stream->context.TryCancel();
}

TEST_F(Streams, StatsEndWithTheTaskWhateverTheInterval) {
  Start("exec sleep 60");
  // Go's longest duration is 292 years; this one is longer.
  const auto stream = Stats(kId, std::chrono::hours(24 * 365 * 1000));
  nomad::TaskStatsResponse sample;
  ASSERT_TRUE(stream->reader->Read(&sample));
  ASSERT_THAT(host_.Stop(kId, "", 5'000), Succeeded());
  EXPECT_FALSE(stream->reader->Read(&sample));
  EXPECT_THAT(stream->reader->Finish(), Succeeded());

  const auto late = Stats(kId, std::chrono::seconds(1));
  EXPECT_FALSE(late->reader->Read(&sample));
  EXPECT_THAT(late->reader->Finish(), Succeeded());
}

TEST_F(Streams, StatsOfAnUnknownTaskAreNotFound) {
  const auto stream = Stats("no/such/task", std::chrono::seconds(1));
  nomad::TaskStatsResponse sample;
  EXPECT_FALSE(stream->reader->Read(&sample));
  const grpc::Status status = stream->reader->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("no/such/task"));
}

TEST_F(Streams, NoThreadAndNoDescriptorForEachStream) {
  Start("exec sleep 60");
  constexpr int kStreams = 40;
  nomad::TaskStatsResponse sample;
  {
    // gRPC makes its own threads with the first calls.
    const auto warm_up = Stats(kId, std::chrono::milliseconds(100));
    ASSERT_TRUE(warm_up->reader->Read(&sample));
    warm_up->context.TryCancel();
  }
  const int64_t threads = PluginStatus("Threads");
  const size_t descriptors = PluginDescriptors();
  std::vector<std::unique_ptr<StatsStream>> streams;
  for (int i = 0; i < kStreams; ++i) streams.push_back(Stats(kId, std::chrono::milliseconds(100)));
  for (const auto& stream : streams) {
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(stream->reader->Read(&sample));
  }
  std::cout << kStreams << " streams: " << threads << " -> " << PluginStatus("Threads")
            << " threads, " << descriptors << " -> " << PluginDescriptors() << " descriptors\n";
  EXPECT_LE(PluginStatus("Threads"), threads + 4);
  EXPECT_LE(PluginDescriptors(), descriptors + 4);
  for (const auto& stream : streams) stream->context.TryCancel();
}

TEST_F(Streams, EventsSayWhoseTheyAreAndReachEveryStream) {
  grpc::ClientContext contexts[2];
  std::unique_ptr<grpc::ClientReader<nomad::DriverTaskEvent>> readers[2];
  for (int i = 0; i < 2; ++i) {
    contexts[i].set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    readers[i] = host_.plugin().driver().TaskEvents(&contexts[i], {});
  }
  // An unread stream is subscribed when the plugin has seen the call; then a task is started.
  nomad::CapabilitiesResponse capabilities;
  grpc::ClientContext context;
  ASSERT_THAT(host_.plugin().driver().Capabilities(&context, {}, &capabilities), Succeeded());
  ASSERT_NO_FATAL_FAILURE(StartWithoutController());
  if (IsSkipped()) return;
  for (const auto& reader : readers) {
    for (const std::string text : {"sandbox ready in", "waiting for the controller"}) {
      nomad::DriverTaskEvent event;
      ASSERT_TRUE(reader->Read(&event));
      EXPECT_EQ(event.task_id(), kId);
      EXPECT_EQ(event.alloc_id(), handle_.config().alloc_id());
      EXPECT_EQ(event.task_name(), "agent");
      EXPECT_GT(event.timestamp().seconds(), 1'700'000'000);
      EXPECT_THAT(event.message(), HasSubstr(text));
      EXPECT_THAT(event.ShortDebugString(), Not(HasSubstr("s3cret")));
    }
  }
  for (grpc::ClientContext& stream : contexts) stream.TryCancel();
}

TEST_F(Streams, EventsOfBeforeTheStreamWaitForIt) {
  ASSERT_NO_FATAL_FAILURE(StartWithoutController());
  if (IsSkipped()) return;
  ASSERT_TRUE(host_.plugin().AwaitStderr("waiting for the controller"));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto reader = host_.plugin().driver().TaskEvents(&context, {});
  nomad::DriverTaskEvent event;
  ASSERT_TRUE(reader->Read(&event));
  EXPECT_EQ(event.task_id(), kId);
  context.TryCancel();
}

// The queue of a stream is bounded (service/streams_test); here that its clients' going away frees
// it, and that nobody who reads suffers.
TEST_F(Streams, ClientsThatNeverReadOrVanishCostNothing) {
  Start("exec sleep 60");
  const auto reading = Stats(kId, std::chrono::milliseconds(100));
  nomad::TaskStatsResponse sample;
  ASSERT_TRUE(reading->reader->Read(&sample));
  const int64_t threads = PluginStatus("Threads");
  for (int round = 0; round < 5; ++round) {
    std::vector<std::unique_ptr<StatsStream>> unread;
    for (int i = 0; i < 20; ++i) unread.push_back(Stats(kId, std::chrono::milliseconds(100)));
    ASSERT_TRUE(reading->reader->Read(&sample));
    for (const auto& stream : unread) stream->context.TryCancel();
  }
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(reading->reader->Read(&sample));
  EXPECT_LE(PluginStatus("Threads"), threads + 4);
  reading->context.TryCancel();
}

// A fingerprint looks at the program that the agents' jar workers are made of.
TEST_F(Streams, FingerprintsComeWhileAgentsStart) {
  std::thread fingerprints([this] {
    for (int i = 0; i < 10; ++i) {
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
      const auto reader = host_.plugin().driver().Fingerprint(&context, {});
      nomad::FingerprintResponse response;
      EXPECT_TRUE(reader->Read(&response));
      EXPECT_EQ(response.health(), nomad::FingerprintResponse::HEALTHY);
      context.TryCancel();
    }
  });
  grpc::Status started;
  for (int i = 0; i < 5; ++i) {
    started = TryStart(WithoutController());
    if (!started.ok()) break;
    EXPECT_THAT(host_.Destroy(kId), Succeeded());
  }
  fingerprints.join();
  if (started.error_message().find("no JDK") != std::string::npos) GTEST_SKIP() << "needs a JDK";
  EXPECT_THAT(started, Succeeded());
}

// The cancel meets the start of the command at every step.
TEST_F(Streams, ExecsThatAreCancelledAtOnceLeaveTheTaskAlone) {
  Start("exec sleep 60");
  const auto exec = [this](grpc::ClientContext* context, const char* command) {
    nomad::ExecTaskStreamingRequest request;
    request.mutable_setup()->set_task_id(kId);
    for (const char* argument : {"/bin/sh", "-c", command}) {
      request.mutable_setup()->add_command(argument);
    }
    auto stream = host_.plugin().driver().ExecTaskStreaming(context);
    stream->Write(request);
    return stream;
  };
  for (int i = 0; i < 50; ++i) {
    grpc::ClientContext context;
    const auto stream = exec(&context, "exec sleep 61");
    std::this_thread::sleep_for(std::chrono::microseconds(i * 100));
    context.TryCancel();
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  const auto processes = [&] {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    const auto stream = exec(&context, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    std::string text;
    nomad::ExecTaskStreamingResponse response;
    while (stream->Read(&response)) text += response.stdout().data();
    EXPECT_THAT(stream->Finish(), Succeeded());
    return text;
  };
  EXPECT_TRUE(WaitFor([&] { return !absl::StrContains(processes(), "sleep 61"); }));
  EXPECT_THAT(processes(), HasSubstr("sleep 60"));
}

}  // namespace
}  // namespace jenkins_agent
