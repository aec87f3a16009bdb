#include "driver/service/exec_stream.h"

#include <sys/wait.h>

#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "driver/agent/exit.h"
#include "driver/base/mutex.h"
#include "driver/base/status.h"
#include "driver/service/status_map.h"
#include "driver/task/exec.h"

namespace jenkins_agent {
namespace {

namespace nomad = hashicorp::nomad::plugins::drivers::proto;
using Request = nomad::ExecTaskStreamingRequest;
using Response = nomad::ExecTaskStreamingResponse;

absl::StatusOr<std::shared_ptr<ExecSession>> ConnectTo(Runtime* runtime,
                                                       const std::string& task_id) {
  ASSIGN_OR_RETURN(const TaskStore* store, runtime->Store());
  ASSIGN_OR_RETURN(const std::shared_ptr<Task> task, store->Find(task_id));
  ASSIGN_OR_RETURN(EventLoop* const loop, runtime->Loop());
  return ExecSession::Connect(loop, *task);
}

void SetResult(int wait_status, nomad::ExitResult* result) {
  result->set_exit_code(ExitCodeOf(wait_status));
  if (WIFSIGNALED(wait_status)) result->set_signal(WTERMSIG(wait_status));
}

grpc::Status Cancelled() { return {grpc::StatusCode::CANCELLED, "the call was cancelled"}; }

grpc::Status NoCommand() {
  return {grpc::StatusCode::INVALID_ARGUMENT, "exec: the command is empty"};
}

// ---- ExecTask ----

class ExecCall final : public grpc::ServerUnaryReactor {
 public:
  explicit ExecCall(nomad::ExecTaskResponse* response) : shared_(std::make_shared<Shared>()) {
    MutexLock lock(shared_->mutex);
    shared_->call = this;
    shared_->response = response;
    response->mutable_result();  // Nomad dereferences it unchecked
  }

  void Start(Runtime* runtime, const nomad::ExecTaskRequest& request) {
    if (request.command().empty()) return shared_->End(NoCommand());
    absl::StatusOr<std::shared_ptr<ExecSession>> session = ConnectTo(runtime, request.task_id());
    if (!session.ok()) return shared_->End(ToGrpc(session.status()));
    ExecSession::Options options;
    options.argv.assign(request.command().begin(), request.command().end());
    options.merge_stderr = true;
    options.timeout = std::chrono::seconds(request.timeout().seconds()) +
                      std::chrono::milliseconds(request.timeout().nanos() / 1'000'000);
    ExecSession::Handlers handlers;
    handlers.on_output = [shared = shared_, session = std::weak_ptr<ExecSession>(*session)](
                             ExecSession::Output output, const std::string& bytes) {
      shared->Keep(bytes);
      if (const auto running = session.lock()) running->MoreOutput(output);
    };
    handlers.on_end = [shared = shared_](const absl::StatusOr<int>& wait_status) {
      shared->Finish(wait_status);
    };
    {
      MutexLock lock(shared_->mutex);
      shared_->session = *session;
    }
    (*session)->Start(options, std::move(handlers));
    (*session)->CloseInput();
  }

  void OnCancel() override {
    std::shared_ptr<ExecSession> session;
    {
      MutexLock lock(shared_->mutex);
      session = std::move(shared_->session);
    }
    if (session != nullptr) session->Cancel();
    shared_->End(Cancelled());
  }
  void OnDone() override { delete this; }

 private:
  // Outlives the call while the session still holds it.
  struct Shared {
    Mutex mutex;
    ExecCall* call ABSL_GUARDED_BY(mutex) = nullptr;  // null: finished
    nomad::ExecTaskResponse* response ABSL_GUARDED_BY(mutex) = nullptr;
    std::shared_ptr<ExecSession> session ABSL_GUARDED_BY(mutex);
    std::string output ABSL_GUARDED_BY(mutex);

    void Keep(const std::string& bytes) ABSL_LOCKS_EXCLUDED(mutex) {
      MutexLock lock(mutex);
      output += bytes;
      if (output.size() > kMaxExecOutputBytes) {
        output.erase(0, output.size() - kMaxExecOutputBytes);
      }
    }
    void Finish(const absl::StatusOr<int>& wait_status) ABSL_LOCKS_EXCLUDED(mutex) {
      if (!wait_status.ok()) return End(ToGrpc(wait_status.status()));
      {
        MutexLock lock(mutex);
        if (call == nullptr) return;
        response->set_stdout(std::move(output));
        SetResult(*wait_status, response->mutable_result());
      }
      End(grpc::Status::OK);
    }
    void End(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex) {
      MutexLock lock(mutex);
      session.reset();
      if (ExecCall* const finished = std::exchange(call, nullptr)) {
        finished->ServerUnaryReactor::Finish(std::move(status));
      }
    }
  };

  const std::shared_ptr<Shared> shared_;
};

// ---- ExecTaskStreaming ----

class ExecStream final : public grpc::ServerBidiReactor<Request, Response> {
 public:
  explicit ExecStream(Runtime* runtime)
      : runtime_(runtime), shared_(std::make_shared<Shared>(this)) {
    shared_->ReadNext();
  }

  void OnReadDone(bool ok) override {
    const std::shared_ptr<ExecSession> session = shared_->session();
    if (session != nullptr) {
      if (ok) Take(*session);
      return;  // the agent does not close its side; if it does, the command runs on
    }
    if (!ok || !request_.has_setup()) {
      return shared_->End({grpc::StatusCode::INVALID_ARGUMENT, "exec: no setup came first"});
    }
    Begin();
  }
  void OnWriteDone(bool ok) override {
    if (ok) shared_->OnWriteDone();
    // Not ok: the client is gone, OnCancel follows.
  }
  void OnCancel() override { shared_->Cancel(); }
  void OnDone() override { delete this; }

 private:
  // What the session holds of the stream; it outlives the stream.
  class Shared {
   public:
    explicit Shared(ExecStream* stream) : stream_(stream) {}

    std::shared_ptr<ExecSession> session() const ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      return session_;
    }
    // False: the stream is over.
    bool SetSession(const std::shared_ptr<ExecSession>& session) ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      if (stream_ == nullptr) return false;
      session_ = session;
      return true;
    }
    void ReadNext() ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      if (stream_ != nullptr) stream_->StartRead(&stream_->request_);
    }
    // At most one chunk of each output is here: the session asks before it reads the next.
    void Push(Response response, std::optional<ExecSession::Output> output)
        ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      queue_.push_back({std::move(response), output});
      WriteNext();
    }
    // After all that was pushed.
    void End(grpc::Status status) ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      status_ = std::move(status);
      WriteNext();
    }
    void OnWriteDone() ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      const std::optional<ExecSession::Output> output = writing_->output;
      writing_.reset();
      if (output && session_ != nullptr) session_->MoreOutput(*output);
      WriteNext();
    }
    void Cancel() ABSL_LOCKS_EXCLUDED(mutex_) {
      MutexLock lock(mutex_);
      if (session_ != nullptr) session_->Cancel();
      session_.reset();
      if (ExecStream* const stream = std::exchange(stream_, nullptr)) stream->Finish(Cancelled());
    }

   private:
    struct Outgoing {
      Response response;
      std::optional<ExecSession::Output> output;  // which may be read on when this is written
    };

    void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (stream_ == nullptr || writing_.has_value()) return;
      if (!queue_.empty()) {
        writing_ = std::move(queue_.front());
        queue_.pop_front();
        stream_->StartWrite(&writing_->response);
      } else if (status_.has_value()) {
        session_.reset();
        std::exchange(stream_, nullptr)->Finish(*status_);
      }
    }

    mutable Mutex mutex_;
    ExecStream* stream_ ABSL_GUARDED_BY(mutex_);  // null: finished
    std::shared_ptr<ExecSession> session_ ABSL_GUARDED_BY(mutex_);
    std::deque<Outgoing> queue_ ABSL_GUARDED_BY(mutex_);
    std::optional<Outgoing> writing_ ABSL_GUARDED_BY(mutex_);
    std::optional<grpc::Status> status_ ABSL_GUARDED_BY(mutex_);
  };

  void Begin() {
    const Request::Setup& setup = request_.setup();
    if (setup.command().empty()) return shared_->End(NoCommand());
    absl::StatusOr<std::shared_ptr<ExecSession>> session = ConnectTo(runtime_, setup.task_id());
    if (!session.ok()) return shared_->End(ToGrpc(session.status()));
    if (!shared_->SetSession(*session)) return;
    ExecSession::Options options;
    options.argv.assign(setup.command().begin(), setup.command().end());
    options.tty = setup.tty();
    (*session)->Start(options, HandlersFor(shared_));
    Take(**session);
  }

  static ExecSession::Handlers HandlersFor(const std::shared_ptr<Shared>& shared) {
    ExecSession::Handlers handlers;
    handlers.on_output = [shared](ExecSession::Output output, std::string bytes) {
      Response response;
      (output == ExecSession::kStdout ? response.mutable_stdout() : response.mutable_stderr())
          ->set_data(std::move(bytes));
      shared->Push(std::move(response), output);
    };
    handlers.on_input_taken = [shared] { shared->ReadNext(); };
    handlers.on_end = [shared](const absl::StatusOr<int>& wait_status) {
      if (!wait_status.ok()) return shared->End(ToGrpc(wait_status.status()));
      Response out_end;
      out_end.mutable_stdout()->set_close(true);
      shared->Push(std::move(out_end), std::nullopt);
      Response err_end;
      err_end.mutable_stderr()->set_close(true);
      shared->Push(std::move(err_end), std::nullopt);
      Response exited;
      exited.set_exited(true);
      SetResult(*wait_status, exited.mutable_result());
      shared->Push(std::move(exited), std::nullopt);
      shared->End(grpc::Status::OK);
    };
    return handlers;
  }

  // What a message carries beside the setup; the next is read when its input has been taken.
  void Take(ExecSession& session) {
    if (request_.has_tty_size()) {
      session.Resize(request_.tty_size().height(), request_.tty_size().width());
    }
    const bool closes = request_.stdin().close();
    const bool writes = !request_.stdin().data().empty();
    if (writes) session.Write(std::move(*request_.mutable_stdin()->mutable_data()));
    if (closes) session.CloseInput();
    if (!writes) shared_->ReadNext();
  }

  Runtime* const runtime_;
  const std::shared_ptr<Shared> shared_;
  Request request_;
};

}  // namespace

grpc::ServerUnaryReactor* NewExecCall(Runtime* runtime, const nomad::ExecTaskRequest& request,
                                      nomad::ExecTaskResponse* response) {
  auto* call = new ExecCall(response);
  call->Start(runtime, request);
  return call;
}

grpc::ServerBidiReactor<Request, Response>* NewExecStream(Runtime* runtime) {
  return new ExecStream(runtime);
}

}  // namespace jenkins_agent
