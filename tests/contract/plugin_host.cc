#include "tests/contract/plugin_host.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kGracePeriod(2);     // go-plugin, between Shutdown and SIGKILL
constexpr std::chrono::seconds kShutdownLimit(30);  // go-plugin has none

// What go-plugin's client adds for Nomad's drivers, and the little of the agent's own that programs
// need.
std::map<std::string, std::optional<std::string>> HostEnvironment() {
  std::map<std::string, std::optional<std::string>> env = {
      {"NOMAD_PLUGIN_MAGIC_COOKIE",
       "e4327c2e01eabfd75a8a67adb114fb34a757d57eee7728d857a8cec6e91a7255"},
      {"PLUGIN_PROTOCOL_VERSIONS", "2"},
      {"PLUGIN_MIN_PORT", "10000"},
      {"PLUGIN_MAX_PORT", "25000"}};
  for (const char* name :
       {"PATH", "HOME", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}) {
    if (const char* value = ::getenv(name)) env[name] = value;
  }
  return env;
}

std::vector<std::string> Environment(const PluginHost::Options& options) {
  auto env = HostEnvironment();
  for (const auto& [name, value] : options.env) env[name] = value;
  std::vector<std::string> lines;
  for (const auto& [name, value] : env) {
    if (value.has_value()) lines.push_back(absl::StrCat(name, "=", *value));
  }
  return lines;
}

// The checks of go-plugin's client.
absl::StatusOr<std::string> SocketOfHandshake(const std::string& line) {
  const std::vector<std::string> fields = absl::StrSplit(line, '|');
  if (fields.size() < 5 || fields[0] != "1" || fields[1] != "2" || fields[2] != "unix" ||
      fields[4] != "grpc") {
    return absl::InvalidArgumentError(absl::StrCat("unrecognized remote plugin message: ", line));
  }
  return fields[3];
}

std::shared_ptr<grpc::Channel> Dial(const std::string& socket_path) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, "unused");
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // each channel its own connection
  return grpc::CreateCustomChannel(absl::StrCat("unix:", socket_path),
                                   grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

PipeReader::PipeReader(Fd pipe)
    : pipe_(std::move(pipe)), stop_(::eventfd(0, EFD_CLOEXEC)), thread_([this] { Read(); }) {}

void PipeReader::Read() {
  std::array<char, 65536> buffer;
  while (true) {
    std::array<pollfd, 2> fds = {pollfd{pipe_.get(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
    if (::poll(fds.data(), fds.size(), -1) < 0) continue;
    if (fds[1].revents != 0) return;
    const ssize_t count = ::read(pipe_.get(), buffer.data(), buffer.size());
    const MutexLock lock(mutex_);
    if (count > 0) text_.append(buffer.data(), count);
    ended_ = count <= 0;
    changed_.NotifyAll();
    if (ended_) return;
  }
}

void PipeReader::Stop() {
  ::eventfd_write(stop_.get(), 1);
  if (thread_.joinable()) thread_.join();
  pipe_.Reset();
}

std::string PipeReader::text() const {
  const MutexLock lock(mutex_);
  return text_;
}

bool PipeReader::ended() const {
  const MutexLock lock(mutex_);
  return ended_;
}

bool PipeReader::AwaitText(const std::string& part, std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  const MutexLock lock(mutex_);
  while (text_.find(part) == std::string::npos) {
    if (ended_ || !changed_.WaitUntil(mutex_, deadline)) {
      return text_.find(part) != std::string::npos;
    }
  }
  return true;
}

bool PipeReader::AwaitEnd(std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  const MutexLock lock(mutex_);
  while (!ended_) {
    if (!changed_.WaitUntil(mutex_, deadline)) return ended_;
  }
  return true;
}

PluginConnection::PluginConnection(const std::string& socket_path)
    : channel_(Dial(socket_path)),
      base_(BasePlugin::NewStub(channel_)),
      driver_(DriverPlugin::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)),
      controller_(plugin::GRPCController::NewStub(channel_)),
      stdio_(plugin::GRPCStdio::NewStub(channel_)),
      broker_(plugin::GRPCBroker::NewStub(channel_)),
      stdio_thread_([this] { ReadStdio(); }),
      broker_thread_([this] { ReadBroker(); }) {}

PluginConnection::~PluginConnection() {
  stdio_context_.TryCancel();
  broker_context_.TryCancel();
  stdio_thread_.join();
  broker_thread_.join();
}

void PluginConnection::ReadStdio() {
  const auto reader = stdio_->StreamStdio(&stdio_context_, google::protobuf::Empty());
  plugin::StdioData data;
  while (reader->Read(&data)) {
  }
  (void)reader->Finish();
  StreamEnded();
}

void PluginConnection::ReadBroker() {
  const auto stream = broker_->StartStream(&broker_context_);
  plugin::ConnInfo info;
  while (stream->Read(&info)) {
  }
  (void)stream->Finish();
  StreamEnded();
}

void PluginConnection::StreamEnded() {
  const MutexLock lock(mutex_);
  streams_ended_ = true;
}

bool PluginConnection::streams_ended() const {
  const MutexLock lock(mutex_);
  return streams_ended_;
}

PluginHost::PluginHost(Subprocess child, Fd stdout_pipe, Fd stderr_pipe)
    : child_(std::move(child)),
      stdout_(std::make_unique<PipeReader>(std::move(stdout_pipe))),
      stderr_(std::make_unique<PipeReader>(std::move(stderr_pipe))) {}

PluginHost::~PluginHost() {
  if (reaped_) return;
  ::kill(child_.pid, SIGKILL);
  (void)Wait(child_);
}

absl::StatusOr<std::unique_ptr<PluginHost>> PluginHost::Launch(const std::string& program,
                                                               const Options& options) {
  std::vector<std::string> argv = {program};
  argv.insert(argv.end(), options.args.begin(), options.args.end());
  ASSIGN_OR_RETURN(Pipe out, MakePipe());
  ASSIGN_OR_RETURN(Pipe err, MakePipe());
  ASSIGN_OR_RETURN(Subprocess child, Start(argv, {.env = Environment(options),
                                                  .stdout_fd = out.write.get(),
                                                  .stderr_fd = err.write.get(),
                                                  .fds = options.fds}));
  out.write.Reset();
  err.write.Reset();
  std::unique_ptr<PluginHost> host(
      new PluginHost(std::move(child), std::move(out.read), std::move(err.read)));
  if (!host->stdout_->AwaitText("\n", kPatience)) return host;  // no handshake: see stderr
  const std::string text = host->stdout_text();
  ASSIGN_OR_RETURN(host->socket_path_, SocketOfHandshake(text.substr(0, text.find('\n'))));
  host->Reattach();
  return host;
}

bool PluginHost::Exited(std::chrono::milliseconds timeout) const {
  pollfd end = {child_.pidfd.get(), POLLIN, 0};
  return ::poll(&end, 1, static_cast<int>(timeout.count())) == 1;
}

absl::StatusOr<PluginHost::End> PluginHost::Reap(bool killed) {
  for (const auto& pipe : {stdout_.get(), stderr_.get()}) {
    if (pipe != nullptr && !pipe->AwaitEnd(kPatience)) {
      return absl::DeadlineExceededError(absl::StrCat("the plugin is dead, but somebody holds its ",
                                                      pipe == stdout_.get() ? "stdout" : "stderr"));
    }
  }
  ASSIGN_OR_RETURN(const ExitStatus exit, Wait(child_));
  reaped_ = true;
  return End{exit, killed};
}

absl::StatusOr<PluginHost::End> PluginHost::Kill() {
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kShutdownLimit);
    plugin::Empty answer;
    const grpc::Status status =
        connection_->controller().Shutdown(&context, plugin::Empty(), &answer);
    if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) {
      return absl::DeadlineExceededError("Shutdown is not answered; a real agent would hang");
    }
  }
  connection_.reset();
  const bool killed = !Exited(kGracePeriod);
  if (killed) ::kill(child_.pid, SIGKILL);
  return Reap(killed);
}

absl::StatusOr<PluginHost::End> PluginHost::Crash() {
  ::kill(child_.pid, SIGKILL);
  absl::StatusOr<End> end = Reap(true);
  connection_.reset();
  return end;
}

absl::StatusOr<PluginHost::End> PluginHost::AwaitEnd() {
  if (!Exited(kPatience)) return absl::DeadlineExceededError("the plugin does not end");
  return Reap(false);
}

void PluginHost::CrashAgent() {
  stdout_.reset();  // closes; a second agent has no pipes
  stderr_.reset();
  connection_.reset();
}

void PluginHost::Reattach() { connection_ = std::make_unique<PluginConnection>(socket_path_); }

}  // namespace jenkins_agent
