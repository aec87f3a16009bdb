// A Nomad agent as a plugin sees it: launches the plugin with go-plugin's environment, reads the
// handshake, dials the socket, opens the stdio and broker streams, and ends the plugin as go-plugin
// does. For tests of the plugin's process; one thread uses a host.
#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "driver/base/fd.h"
#include "driver/base/mutex.h"
#include "driver/base/subprocess.h"
#include "proto/health.grpc.pb.h"
#include "proto/nomad_base.grpc.pb.h"
#include "proto/nomad_driver.grpc.pb.h"
#include "proto/plugin.grpc.pb.h"

namespace jenkins_agent {

using BasePlugin = hashicorp::nomad::plugins::base::proto::BasePlugin;
using DriverPlugin = hashicorp::nomad::plugins::drivers::proto::Driver;

// Reads a pipe to its end on a thread of its own and keeps the text.
class PipeReader {
 public:
  explicit PipeReader(Fd pipe);
  ~PipeReader() { Stop(); }

  std::string text() const;
  // False when `timeout` passed first.
  bool AwaitText(const std::string& part, std::chrono::milliseconds timeout);
  bool AwaitEnd(std::chrono::milliseconds timeout);
  bool ended() const;
  // Closes the pipe, as the death of the agent does.
  void Stop();

 private:
  void Read();

  Fd pipe_;
  Fd stop_;  // eventfd
  mutable Mutex mutex_;
  CondVar changed_;
  std::string text_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

// One gRPC connection to a plugin, with the two streams that go-plugin opens on it.
class PluginConnection {
 public:
  explicit PluginConnection(const std::string& socket_path);
  ~PluginConnection();

  BasePlugin::Stub& base() { return *base_; }
  DriverPlugin::Stub& driver() { return *driver_; }
  grpc::health::v1::Health::Stub& health() { return *health_; }
  plugin::GRPCController::Stub& controller() { return *controller_; }
  // Whether the plugin ended one of the two streams.
  bool streams_ended() const;

 private:
  void ReadStdio();
  void ReadBroker();
  void StreamEnded();

  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<BasePlugin::Stub> base_;
  std::unique_ptr<DriverPlugin::Stub> driver_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
  std::unique_ptr<plugin::GRPCController::Stub> controller_;
  std::unique_ptr<plugin::GRPCStdio::Stub> stdio_;
  std::unique_ptr<plugin::GRPCBroker::Stub> broker_;

  grpc::ClientContext stdio_context_;
  grpc::ClientContext broker_context_;
  mutable Mutex mutex_;
  bool streams_ended_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread stdio_thread_;
  std::thread broker_thread_;
};

class PluginHost {
 public:
  struct Options {
    std::vector<std::string> args = {};
    // Over what go-plugin sets; a variable without a value is left out.
    std::map<std::string, std::optional<std::string>> env = {};
    std::vector<std::pair<int, int>> fds = {};  // inherited by mistake
  };
  struct End {
    ExitStatus exit;
    bool killed = false;  // it did not end within two seconds of Shutdown
  };

  // Starts the program and reads its handshake; with a valid one it is connected.
  static absl::StatusOr<std::unique_ptr<PluginHost>> Launch(const std::string& program,
                                                            const Options& options);
  // Kills what is still running.
  ~PluginHost();

  pid_t pid() const { return child_.pid; }
  std::string stdout_text() const { return stdout_->text(); }
  std::string stderr_text() const { return stderr_->text(); }
  bool AwaitStderr(const std::string& part) { return stderr_->AwaitText(part, kPatience); }
  // Whether go-plugin would take the plugin for dead.
  bool pipes_ended() const { return stdout_->ended() && stderr_->ended(); }
  const std::string& socket_path() const { return socket_path_; }
  bool connected() const { return connection_ != nullptr; }
  PluginConnection& connection() { return *connection_; }
  BasePlugin::Stub& base() { return connection_->base(); }
  DriverPlugin::Stub& driver() { return connection_->driver(); }

  // go-plugin's Kill: Shutdown, close, two seconds, SIGKILL, the end of both pipes.
  absl::StatusOr<End> Kill();
  // A crash of the plugin: SIGKILL, the end of both pipes.
  absl::StatusOr<End> Crash();
  // Waits for a plugin that ends by itself.
  absl::StatusOr<End> AwaitEnd();

  // A crash of the agent: pipes and connection are gone, the plugin is not.
  void CrashAgent();
  // A new agent: connects to the old plugin's socket.
  void Reattach();

 private:
  static constexpr std::chrono::seconds kPatience{30};

  PluginHost(Subprocess child, Fd stdout_pipe, Fd stderr_pipe);
  bool Exited(std::chrono::milliseconds timeout) const;
  absl::StatusOr<End> Reap(bool killed);

  Subprocess child_;
  bool reaped_ = false;
  std::unique_ptr<PipeReader> stdout_;
  std::unique_ptr<PipeReader> stderr_;
  std::string socket_path_;
  std::unique_ptr<PluginConnection> connection_;
};

}  // namespace jenkins_agent
