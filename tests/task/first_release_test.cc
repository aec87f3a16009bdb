// Bytes that the first release wrote: supervisors of it outlive an upgrade, and so do its records.
// tests/data/first_release/*.txt say the same in Protobuf's text form (made with protoc --encode).
#include <gtest/gtest.h>

#include "driver/base/file.h"
#include "driver/supervisor/protocol.h"
#include "proto/supervisor.pb.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

template <typename Message>
Message Read(const std::string& name) {
  Message message;
  const absl::StatusOr<std::string> bytes = ReadFile(std::string(FIRST_RELEASE) + "/" + name);
  EXPECT_OK(bytes);
  EXPECT_TRUE(bytes.ok() && message.ParseFromString(*bytes)) << name;
  return message;
}

TEST(FirstRelease, ItsSupervisorsAnswerIsUnderstood) {
  const auto reply = Read<pb::ControlReply>("hello_reply.bin");
  EXPECT_EQ(reply.sequence(), 1u);
  const pb::TaskStatus& status = reply.status();
  EXPECT_EQ(status.version(), 1u);
  EXPECT_LE(status.version(), kSpecVersion);
  EXPECT_EQ(status.state(), pb::RUNNING);
  EXPECT_EQ(status.phase(), pb::PHASE_CONNECTED);
  EXPECT_EQ(status.supervisor_pid(), 4001);
  EXPECT_EQ(status.init_pid(), 4002);
  EXPECT_EQ(status.payload_pid(), 4003);
  EXPECT_EQ(status.launches(), 2u);
  EXPECT_EQ(status.cgroup_dirs_size(), 2);
  EXPECT_EQ(status.timings().connected_ms(), 812.5);
}

TEST(FirstRelease, ItsRecordsAreUnderstood) {
  const auto record = Read<pb::TaskRecord>("task_record.bin");
  EXPECT_EQ(record.version(), 1u);
  EXPECT_LE(record.version(), kRecordVersion);
  EXPECT_EQ(record.task_id(), "alloc/agent/1");
  EXPECT_EQ(record.task_dir(), "/state/tasks/fc70ef9af7f9011342f9f98fcb2219ad");
  EXPECT_EQ(record.boot_id(), "boot-1");
  EXPECT_EQ(record.supervisor_pid(), 4001);
  EXPECT_EQ(record.supervisor_start_time(), 123456u);
  EXPECT_EQ(record.cgroup_dirs(1), "/sys/fs/cgroup/pids/nomad/a.agent");
  EXPECT_EQ(record.network_namespace(), "/run/netns/a");

  const auto exit = Read<pb::ExitRecord>("exit_record.bin");
  EXPECT_EQ(exit.exit_code(), 137);
  EXPECT_EQ(exit.signal(), 9);
  EXPECT_TRUE(exit.oom_killed());
  EXPECT_EQ(exit.message(), "out of memory");
}

TEST(FirstRelease, ItsTaskDescriptionIsUnderstood) {
  const auto spec = Read<pb::LaunchSpec>("launch_spec.bin");
  EXPECT_EQ(spec.version(), 1u);
  EXPECT_EQ(spec.task_id(), "alloc/agent/1");
  EXPECT_EQ(spec.sandbox().mounts(0).kind(), pb::MountSpec::TMPFS);
  EXPECT_EQ(spec.sandbox().mounts(0).size_bytes(), 1048576u);
  EXPECT_EQ(spec.cgroup().memory_bytes(), 67108864);
  EXPECT_EQ(spec.user().uid(), 20001u);
  EXPECT_EQ(spec.program().argv(0), "/bin/true");
  EXPECT_EQ(spec.agent().urls(0), "http://controller.example/");
  EXPECT_EQ(spec.agent().java_homes(0).feature(), 17u);
}

}  // namespace
}  // namespace jenkins_agent
