// A stream over a real connection whose client does not read.
#include "driver/service/streams.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "driver/base/file.h"
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

// fixmap { "java_homes": [path] }
std::string JavaHomesConfig(const std::string& path) {
  return absl::StrCat("\x81\xaajava_homes\x91\xd9", std::string(1, static_cast<char>(path.size())),
                      path);
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
  explicit FingerprintService(Runtime* runtime) : runtime_(runtime) {}
  grpc::ServerWriteReactor<nomad::FingerprintResponse>* Fingerprint(
      grpc::CallbackServerContext*, const nomad::FingerprintRequest*) override {
    return NewFingerprintStream(runtime_, std::chrono::milliseconds(2));
  }

 private:
  Runtime* const runtime_;
};

// Many looks later the second message is the change, and no repetition of the first.
TEST(FingerprintStream, SendsNothingUntilTheHostChanges) {
  REQUIRES_ROOT();  // nobody else gets attributes
  const TempDir dir;
  const std::string jdk = dir.path() + "/jdk";
  const auto install = [&jdk](const std::string& version) {
    ASSERT_OK(MakeDirs(jdk + "/bin"));
    ASSERT_OK(WriteFileAtomic(jdk + "/bin/java", "", 0755));
    ASSERT_OK(WriteFileAtomic(jdk + "/release", absl::StrCat("JAVA_VERSION=\"", version, "\"\n")));
  };
  install("17.0.1");
  Runtime runtime({});
  ASSERT_OK(runtime.Configure(JavaHomesConfig(jdk), std::nullopt));
  FingerprintService service(&runtime);
  Served served(service);
  ASSERT_NE(served.server, nullptr);
  const auto stream = served.stub->Fingerprint(&served.context, {});
  nomad::FingerprintResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.attributes().at("driver.jenkins-agent.java.17").string_val(), "17.0.1");

  std::promise<void> looked;  // behind some looks, on their thread
  ASSERT_OK_AND_ASSIGN(EventLoop* const worker, runtime.Worker());
  worker->Post(
      [&] { worker->After(std::chrono::milliseconds(200), [&looked] { looked.set_value(); }); });
  looked.get_future().wait();
  install("17.0.2");
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.attributes().at("driver.jenkins-agent.java.17").string_val(), "17.0.2");
  served.End();
}

}  // namespace
}  // namespace jenkins_agent
