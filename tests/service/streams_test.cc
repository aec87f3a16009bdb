// A stream over a real connection whose client does not read.
#include "driver/service/streams.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
#include "driver/base/recoverable.h"
#include "driver/image/store.h"
#include "tests/support/requires.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

// A service behind a socket, and a client for one stream of it.
struct Served {
  explicit Served(grpc::Service& service) {
    const std::string address = absl::StrCat("unix:", dir.path(), "/socket");
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    stub = nomad::Driver::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
  }
  void End() {
    context.TryCancel();
    server->Shutdown();
  }

  const TempDir dir;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<nomad::Driver::Stub> stub;
  grpc::ClientContext context;
};

class EventService final
    : public nomad::Driver::WithCallbackMethod_TaskEvents<nomad::Driver::Service> {
 public:
  explicit EventService(Runtime* runtime) : runtime_(runtime) {}
  grpc::ServerWriteReactor<nomad::DriverTaskEvent>* TaskEvents(
      grpc::CallbackServerContext*, const nomad::TaskEventsRequest*) override {
    return NewTaskEventStream(runtime_);
  }

 private:
  Runtime* const runtime_;
};

// Its number is what a test knows an event by; its size, that few fit into the transport's buffers.
TaskEvent NumberedEvent(int number) {
  TaskEvent event;
  event.time_ns = number;
  event.message = std::string(64 << 10, 'x');
  return event;
}

std::string Packed(const nlohmann::json& options) {
  const std::vector<uint8_t> bytes = nlohmann::json::to_msgpack(options);
  return std::string(bytes.begin(), bytes.end());
}

void InstallJdk(const std::string& home, const std::string& version) {
  ASSERT_OK(MakeDirs(home + "/bin"));
  ASSERT_OK(WriteFileAtomic(home + "/bin/java", "", 0755));
  ASSERT_OK(WriteFileAtomic(home + "/release", absl::StrCat("JAVA_VERSION=\"", version, "\"\n")));
}

TEST(TaskEventStream, OfAClientThatDoesNotReadKeepsTheNewest256) {
  constexpr int kQueued = 256;
  constexpr int kEvents = 2000;
  Runtime runtime({});
  EventService service(&runtime);
  Served served(service);
  ASSERT_NE(served.server, nullptr);
  const auto stream = served.stub->TaskEvents(&served.context, {});
  runtime.events().Publish(NumberedEvent(0));
  nomad::DriverTaskEvent event;
  ASSERT_TRUE(stream->Read(&event));  // it is subscribed

  for (int i = 1; i <= kEvents; ++i) runtime.events().Publish(NumberedEvent(i));
  std::vector<int> numbers;
  while ((numbers.empty() || numbers.back() != kEvents) && stream->Read(&event)) {
    numbers.push_back(event.timestamp().nanos());
  }
  ASSERT_GT(numbers.size(), static_cast<size_t>(kQueued));
  const std::vector<int> newest(numbers.end() - kQueued, numbers.end());
  for (int i = 0; i < kQueued; ++i) EXPECT_EQ(newest[i], kEvents - kQueued + 1 + i);
  // Before them only what was on its way when the client stopped reading.
  EXPECT_LT(numbers[numbers.size() - kQueued - 1], kEvents - kQueued);
  served.End();
}

class FingerprintService final
    : public nomad::Driver::WithCallbackMethod_Fingerprint<nomad::Driver::Service> {
 public:
  explicit FingerprintService(Runtime* runtime,
                              std::chrono::milliseconds period = std::chrono::milliseconds(2))
      : runtime_(runtime), period_(period) {}
  grpc::ServerWriteReactor<nomad::FingerprintResponse>* Fingerprint(
      grpc::CallbackServerContext*, const nomad::FingerprintRequest*) override {
    return NewFingerprintStream(runtime_, period_);
  }

 private:
  Runtime* const runtime_;
  const std::chrono::milliseconds period_;
};

// What one client is told.
class Fingerprints {
 public:
  template <typename... Options>
  explicit Fingerprints(Options... options)
      : service_(options...),
        served_(service_),
        stream_(served_.stub->Fingerprint(&served_.context, {})) {}
  ~Fingerprints() { served_.End(); }
  // Waits for it.
  nomad::FingerprintResponse Next() {
    nomad::FingerprintResponse response;
    EXPECT_TRUE(stream_->Read(&response));
    return response;
  }

 private:
  FingerprintService service_;
  Served served_;
  const std::unique_ptr<grpc::ClientReader<nomad::FingerprintResponse>> stream_;
};

// Behind what the worker does meanwhile, on its thread.
void LetTheWorkerLook(Runtime& runtime, std::chrono::milliseconds time) {
  std::promise<void> looked;
  ASSERT_OK_AND_ASSIGN(EventLoop* const worker, runtime.Worker());
  worker->Post([&] { worker->After(time, [&looked] { looked.set_value(); }); });
  looked.get_future().wait();
}

// Many looks later the second message is the change, and no repetition of the first.
TEST(FingerprintStream, SendsNothingUntilTheHostChanges) {
  REQUIRES_ROOT();  // nobody else gets attributes
  const TempDir dir;
  const std::string jdk = dir.path() + "/jdk";
  InstallJdk(jdk, "17.0.1");
  Runtime runtime({});
  ASSERT_OK(runtime.Configure(Packed({{"java_homes", {jdk}}}), std::nullopt));
  Fingerprints fingerprints(&runtime);
  nomad::FingerprintResponse response = fingerprints.Next();
  EXPECT_EQ(response.attributes().at("driver.jenkins-agent.java.17").string_val(), "17.0.1");

  LetTheWorkerLook(runtime, std::chrono::milliseconds(200));
  InstallJdk(jdk, "17.0.2");
  response = fingerprints.Next();
  EXPECT_EQ(response.attributes().at("driver.jenkins-agent.java.17").string_val(), "17.0.2");
}

void Keep(const Store& store, const std::string& name) {
  ASSERT_OK_AND_ASSIGN(const Staging staging, store.Stage());
  ASSERT_OK(store.Publish(staging, {.manifest = Digest::Of(name), .config = "{}", .layers = {}},
                          {.name = name, .manifest = Digest::Of(name)}));
}

// The next look at the host is an hour away. As by the operator's commands: another object, which
// the stream knows nothing of.
TEST(FingerprintStream, AnImageIsToldWhenItIsThereAndOnlyThen) {
  REQUIRES_ROOT();
  const TempDir dir;
  nlohmann::json options = {{"state_dir", dir.path()}};
  options["images"]["pins"] = std::vector<std::string>{"r.example/*"};
  Runtime runtime({});
  ASSERT_OK(runtime.Configure(Packed(options), std::nullopt));
  ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Store> store, Store::Open(dir.path() + "/images"));
  Fingerprints fingerprints(&runtime, std::chrono::hours(1));
  nomad::FingerprintResponse response = fingerprints.Next();
  const std::string first = "unique.driver.jenkins-agent.image.r_example_a_1";
  const std::string second = "unique.driver.jenkins-agent.image.r_example_b_1";
  EXPECT_FALSE(response.attributes().contains(first));

  Keep(*store, "r.example/a:1");
  response = fingerprints.Next();
  EXPECT_EQ(response.attributes().at(first).string_val(), Digest::Of("r.example/a:1").Short());
  // Looked up again, by a job with image_pull_policy "always"; nobody's; and taken by a task.
  for (int i = 0; i < 20; ++i) {
    const Digest manifest = Digest::Of("r.example/a:1");
    ASSERT_OK(store->SetRef({.name = "r.example/a:1", .manifest = manifest, .resolved_at = i}));
    Keep(*store, "other.example/c:1");
    ASSERT_OK(store->TakeLease({.task = "t", .manifest = manifest, .task_dir = dir.path()}));
    ASSERT_OK(store->DropLease("t"));
    LetTheWorkerLook(runtime, std::chrono::milliseconds(30));
  }
  LetTheWorkerLook(runtime, std::chrono::milliseconds(300));
  Keep(*store, "r.example/b:1");
  response = fingerprints.Next();  // the next message is this one
  EXPECT_NE(response.attributes().at(second).string_val(), "");
  ASSERT_OK(store->Remove(Digest::Of("r.example/a:1")).status());
  response = fingerprints.Next();
  EXPECT_EQ(response.attributes().at(first).string_val(), "");
}

TEST(FingerprintStream, AStateDirectoryThatIsMendedHealsTheDriver) {
  REQUIRES_ROOT();
  const TempDir dir;
  const std::string in_its_place = dir.path() + "/state";
  ASSERT_OK(WriteFileAtomic(in_its_place, ""));
  InstallJdk(dir.path() + "/jdk", "17.0.1");
  ASSERT_OK_AND_ASSIGN(const std::string supervisor, ReadFile(SUPERVISOR_PROGRAM, 256 << 20));
  Runtime runtime({.supervisor = supervisor, .tools = {}, .exporter = {}});
  nlohmann::json options = {{"state_dir", in_its_place}};
  options["java_homes"] = std::vector<std::string>{dir.path() + "/jdk"};
  ASSERT_OK(runtime.Configure(Packed(options), Runtime::NomadConfig()));
  EXPECT_TRUE(IsRecoverable(runtime.Store().status()));
  Fingerprints fingerprints(&runtime);
  nomad::FingerprintResponse response = fingerprints.Next();
  EXPECT_EQ(response.health(), nomad::FingerprintResponse::UNHEALTHY);
  EXPECT_EQ(response.health_description(),
            absl::StrCat("state_dir ", in_its_place, " is no directory"));
  LetTheWorkerLook(runtime, std::chrono::milliseconds(100));
  ASSERT_OK(RemoveTree(in_its_place));
  response = fingerprints.Next();
  EXPECT_EQ(response.health(), nomad::FingerprintResponse::HEALTHY)
      << response.health_description();
  EXPECT_OK(runtime.Store());
}

}  // namespace
}  // namespace jenkins_agent
