// Programs beside the payload: the supervisor's side, with the descriptors that it hands over.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "driver/base/file.h"
#include "driver/base/packet.h"
#include "tests/supervisor/harness.h"
#include "tests/support/status_matchers.h"

namespace jenkins_agent {
namespace {

using testing::HasSubstr;

// One session as its client holds it: a connection, and the descriptors that came over it.
struct Client {
  Fd connection;
  std::vector<Fd> fds;
};

absl::StatusOr<Packet> Receive(int socket) {
  pollfd wait = {socket, POLLIN, 0};
  if (::poll(&wait, 1, kTestDeadline.count() * 1000) != 1) {
    return absl::DeadlineExceededError("nothing came");
  }
  return ReceivePacket(socket);
}

std::string ReadToEnd(const Fd& fd) {
  std::string text;
  char buffer[4096];
  ssize_t size;
  while ((size = ::read(fd.get(), buffer, sizeof(buffer))) > 0) text.append(buffer, size);
  return text;
}

class Exec : public SupervisorTest {
 protected:
  absl::StatusOr<Client> Run(const std::vector<std::string>& argv, bool tty = false) {
    Client client;
    absl::StatusOr<Fd> connection = ConnectToSupervisor(TaskDir());
    if (!connection.ok()) return connection.status();
    client.connection = *std::move(connection);
    pb::ControlRequest request;
    request.set_sequence(1);
    for (const std::string& argument : argv) request.mutable_exec()->add_argv(argument);
    request.mutable_exec()->set_tty(tty);
    const absl::Status sent = SendPacket(client.connection.get(), request.SerializeAsString());
    if (!sent.ok()) return sent;
    absl::StatusOr<Packet> packet = Receive(client.connection.get());
    if (!packet.ok()) return packet.status();
    pb::ControlReply reply;
    EXPECT_TRUE(reply.ParseFromString(packet->data));
    EXPECT_EQ(reply.sequence(), 1u);
    if (reply.error_code() != 0) {
      return absl::Status(static_cast<absl::StatusCode>(reply.error_code()), reply.error());
    }
    client.fds = std::move(packet->fds);
    return client;
  }
  absl::StatusOr<Client> RunShell(const std::string& script, bool tty = false) {
    return Run({"/bin/sh", "-c", script}, tty);
  }
  int WaitStatus(const Client& client) {
    const absl::StatusOr<Packet> packet = Receive(client.connection.get());
    pb::ControlReply reply;
    if (!packet.ok() || !reply.ParseFromString(packet->data) || !reply.has_exec_exit()) return -1;
    return reply.exec_exit().wait_status();
  }
  void Release(const Client& client) {
    pb::ControlRequest request;
    request.set_sequence(2);
    request.mutable_exec_release();
    EXPECT_OK(SendPacket(client.connection.get(), request.SerializeAsString()));
    EXPECT_OK(Receive(client.connection.get()));
  }
  // In the task, told by a session of its own.
  bool RunsInTask(const std::string& what) {
    absl::StatusOr<Client> client = RunShell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '");
    EXPECT_OK(client);
    return client.ok() && ReadToEnd(client->fds[1]).find(what) != std::string::npos;
  }
};

TEST_F(Exec, RunsAsTheTaskDoesAndTellsItsExit) {
  pb::LaunchSpec spec = Spec({"sleep", "1000"});
  spec.mutable_program()->add_env("TOKEN=task's own");
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  ASSERT_OK_AND_ASSIGN(
      const Client client,
      RunShell("echo $TOKEN; id -u; pwd; hostname; echo $$ >session; cat; echo bad >&2; exit 43"));
  ASSERT_EQ(client.fds.size(), 3u);
  ASSERT_OK(WriteAll(client.fds[0].get(), "typed\n"));
  EXPECT_TRUE(Eventually([&] { return !LocalContent("session").empty(); }));
  // In every cgroup of the task: the payload, and the shell with its child.
  for (const std::string& dir : status.cgroup_dirs()) {
    ASSERT_OK_AND_ASSIGN(const std::string processes, ReadFile(dir + "/cgroup.procs"));
    EXPECT_GE(std::count(processes.begin(), processes.end(), '\n'), 2) << dir;
  }
  ::close(const_cast<Fd&>(client.fds[0]).Release());
  EXPECT_EQ(ReadToEnd(client.fds[1]), "task's own\n20001\n/local\nbox\ntyped\n");
  EXPECT_EQ(ReadToEnd(client.fds[2]), "bad\n");
  EXPECT_EQ(WaitStatus(client), 43 << 8);
  EXPECT_EQ(watcher().Status().state(), pb::RUNNING);
}

TEST_F(Exec, ATerminalIsTheSandboxsOwn) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  ASSERT_OK_AND_ASSIGN(const Client client,
                       RunShell("read line; stty size; tty; echo x >/dev/tty; echo $TERM;"
                                "stat -c %u $(tty); ls /proc/self/fd | wc -l",
                                /*tty=*/true));
  ASSERT_EQ(client.fds.size(), 1u);
  const winsize size = {.ws_row = 33, .ws_col = 77, .ws_xpixel = 0, .ws_ypixel = 0};
  ASSERT_EQ(::ioctl(client.fds[0].get(), TIOCSWINSZ, &size), 0);
  ASSERT_OK(WriteAll(client.fds[0].get(), "\n"));
  // The payload's user owns the terminal; 4: ls has the directory open.
  EXPECT_EQ(ReadToEnd(client.fds[0]), "\r\n33 77\r\n/dev/pts/0\r\nx\r\nxterm\r\n20001\r\n4\r\n");
  EXPECT_EQ(WaitStatus(client), 0);
}

TEST_F(Exec, CtrlCReachesTheForegroundProgram) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  ASSERT_OK_AND_ASSIGN(const Client client, Run({"sleep", "1001"}, /*tty=*/true));
  EXPECT_TRUE(Eventually([&] { return RunsInTask("sleep 1001"); }));
  ASSERT_OK(WriteAll(client.fds[0].get(), "\x03"));
  const int wait_status = WaitStatus(client);
  EXPECT_TRUE(WIFSIGNALED(wait_status));
  EXPECT_EQ(WTERMSIG(wait_status), SIGINT);
}

TEST_F(Exec, AMissingProgramIsOneSentence) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  EXPECT_THAT(Run({"nope"}),
              StatusIs(absl::StatusCode::kNotFound, "exec nope: No such file or directory"));
  EXPECT_THAT(Run({"/etc"}, /*tty=*/true),
              StatusIs(absl::StatusCode::kPermissionDenied, "exec /etc: Permission denied"));
  EXPECT_THAT(Run({}), StatusIs(absl::StatusCode::kInvalidArgument, "no program to start"));
}

TEST_F(Exec, AClientThatGoesTakesItsWholeSessionAlong) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  {
    // One child in the leader's group, one in a group of its own as an interactive shell makes
    // them.
    ASSERT_OK_AND_ASSIGN(const Client client,
                         RunShell("sleep 1001 & set -m; sleep 1002 & echo on; wait"));
    char word[4] = {};
    ASSERT_EQ(::read(client.fds[1].get(), word, 3), 3);
    EXPECT_TRUE(Eventually([&] { return RunsInTask("sleep 1001") && RunsInTask("sleep 1002"); }));
  }
  EXPECT_TRUE(Eventually([&] { return !RunsInTask("sleep 1001") && !RunsInTask("sleep 1002"); }));
  EXPECT_TRUE(RunsInTask("sleep 1000"));
}

TEST_F(Exec, WhatALeaderLeftDiesWithTheClientUnlessReleased) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  {
    ASSERT_OK_AND_ASSIGN(const Client kept, RunShell("sleep 1001 >/dev/null 2>&1 &"));
    ASSERT_OK_AND_ASSIGN(const Client lost, RunShell("sleep 1002 >/dev/null 2>&1 &"));
    EXPECT_EQ(WaitStatus(kept), 0);
    EXPECT_EQ(WaitStatus(lost), 0);
    EXPECT_TRUE(Eventually([&] { return RunsInTask("sleep 1001") && RunsInTask("sleep 1002"); }));
    Release(kept);
  }
  EXPECT_TRUE(Eventually([&] { return !RunsInTask("sleep 1002"); }));
  EXPECT_TRUE(RunsInTask("sleep 1001"));
}

TEST_F(Exec, EndsWithTheTask) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  ASSERT_OK_AND_ASSIGN(const Client client, Run({"sleep", "1001"}));
  ASSERT_OK(watcher().Stop(SIGTERM, kTestDeadline));
  EXPECT_EQ(WaitStatus(client), SIGKILL);
  ASSERT_TRUE(watcher().WaitExit());
  EXPECT_EQ(ReadToEnd(client.fds[1]), "");
  EXPECT_FALSE(Run({"true"}).ok());
}

TEST_F(Exec, ThereIsALimitAndItIsTold) {
  ASSERT_OK(Start(Spec({"sleep", "1000"})));
  std::vector<Client> clients;
  for (int i = 0; i < 32; ++i) {
    ASSERT_OK_AND_ASSIGN(Client client, Run({"cat"}));
    clients.push_back(std::move(client));
  }
  EXPECT_THAT(Run({"cat"}), StatusIs(absl::StatusCode::kResourceExhausted,
                                     "exec: the task has 32 sessions already"));
  clients.pop_back();
  EXPECT_TRUE(Eventually([&] { return Run({"true"}).ok(); }));
}

TEST_F(Exec, WorksWhileTheAgentIsWaitedFor) {
  pb::LaunchSpec spec = Spec({});
  spec.mutable_agent()->add_urls("http://127.0.0.1:1/");
  spec.mutable_agent()->set_name("linux-1");
  pb::JavaHome& home = *spec.mutable_agent()->add_java_homes();
  home.set_path(directory() + "/jdk");
  home.set_feature(17);
  ASSERT_OK(MakeDirs(directory() + "/jdk/bin"));
  ASSERT_OK(WriteFileAtomic(directory() + "/jdk/bin/java", "#!/bin/sh\n", 0755));
  ASSERT_OK_AND_ASSIGN(const pb::TaskStatus status, Start(spec));
  EXPECT_EQ(status.state(), pb::WAITING_FOR_JAR);
  ASSERT_OK_AND_ASSIGN(const Client client, RunShell("pwd"));
  EXPECT_EQ(ReadToEnd(client.fds[1]), "/local\n");
  EXPECT_EQ(WaitStatus(client), 0);
}

}  // namespace
}  // namespace jenkins_agent
