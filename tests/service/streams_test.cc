// A stream over a real connection whose client does not read.
#include "driver/service/streams.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/temp_dir.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;

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

TEST(TaskEventStream, OfAClientThatDoesNotReadKeepsTheNewest256) {
  constexpr int kQueued = 256;
  constexpr int kEvents = 2000;
  const TempDir dir;
  Runtime runtime({});
  EventService service(&runtime);
  const std::string address = absl::StrCat("unix:", dir.path(), "/socket");
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials());
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  ASSERT_NE(server, nullptr);
  const auto stub =
      nomad::Driver::NewStub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(120));
  const auto stream = stub->TaskEvents(&context, {});
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
  context.TryCancel();
  server->Shutdown();
}

}  // namespace
}  // namespace jenkins_agent
