#include "driver/image/registry.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "driver/base/mutex.h"
#include "driver/base/status.h"
#include "driver/image/challenge.h"
#include "driver/image/http_stream.h"
#include "driver/image/json.h"

namespace jenkins_agent {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kFirstPause{500};
constexpr milliseconds kMaxPause{60'000};
constexpr size_t kMaxErrorBytes = 64 << 10;  // of a server's explanation
constexpr size_t kShownBytes = 200;
constexpr size_t kMaxTokenBytes = 1 << 20;

// A thread's own wait; nothing can come in the meantime.
void Pause(milliseconds duration) { (void)::poll(nullptr, 0, static_cast<int>(duration.count())); }

// Doubles from try to try; a third of it by chance, so that many nodes do not come back together.
milliseconds PauseBefore(int attempt, milliseconds wanted) {
  thread_local std::minstd_rand random(std::random_device{}());
  const milliseconds base = std::min(kMaxPause, kFirstPause * (1 << std::min(attempt, 6)));
  const milliseconds jitter(random() % (base.count() / 3 + 1));
  return std::min(kMaxPause, std::max(base + jitter, wanted));
}

struct Failure {
  absl::Status status;
  bool retry = false;
  milliseconds wait{0};  // as the server asks
};

absl::StatusOr<std::string> ReadText(ByteSource& source, size_t limit) {
  std::string text, buffer(16 << 10, '\0');
  for (;;) {
    ASSIGN_OR_RETURN(const size_t count, source.Read(buffer.data(), buffer.size()));
    if (count == 0) return text;
    text.append(buffer, 0, count);
    if (text.size() > limit) {
      return absl::OutOfRangeError(absl::StrCat("is longer than ", limit, " bytes"));
    }
  }
}

// "404 Not Found (MANIFEST_UNKNOWN: manifest unknown)".
std::string Explanation(HttpStream& answer) {
  std::string text = answer.status_text();
  const absl::StatusOr<std::string> body = ReadText(answer, kMaxErrorBytes);
  if (!body.ok()) return text;
  const absl::StatusOr<Json> document = ParseJsonObject(*body);
  if (!document.ok()) return text;
  const auto errors = document->find("errors");
  if (errors == document->end() || !errors->is_array() || errors->empty()) return text;
  std::string code, message;
  if (!(*errors)[0].is_object() || !ReadMember((*errors)[0], "code", code).ok() ||
      !ReadMember((*errors)[0], "message", message).ok()) {
    return text;
  }
  return absl::StrCat(
      text, " (", absl::CHexEscape(absl::StrCat(code, ": ", message).substr(0, kShownBytes)), ")");
}

Failure FailureOf(HttpStream& answer) {
  Failure failure;
  const std::string text = absl::StrCat("answers ", Explanation(answer));
  switch (answer.status()) {
    case 401:
      failure.status = absl::UnauthenticatedError(text);
      break;
    case 403:
      failure.status = absl::PermissionDeniedError(text);
      break;
    case 404:
      failure.status = absl::NotFoundError(text);
      break;
    default:
      failure.status = absl::UnavailableError(text);
  }
  failure.retry = answer.status() == 408 || answer.status() == 429 || answer.status() >= 500;
  int64_t seconds = 0;
  if (absl::SimpleAtoi(answer.header("retry-after"), &seconds) && seconds > 0) {
    failure.wait = std::min(kMaxPause, milliseconds(std::min<int64_t>(seconds, 3600) * 1000));
  }
  return failure;
}

// One place that serves the repository: the registry itself, or a mirror of it.
struct Endpoint {
  std::string base;   // "https://host/v2/<repository>/"
  std::string query;  // "?ns=<host>" for mirrors
  std::string name;   // for messages
  bool registry = true;
};

class Session {
 public:
  Session(const Reference& reference, const RegistryOptions& options)
      : reference_(reference), options_(options) {
    const std::string scheme = options.plain_http ? "http://" : "https://";
    endpoints_.push_back(
        {.base = absl::StrCat(scheme, ApiHost(reference.host), "/v2/", reference.repository, "/"),
         .query = "",
         .name = reference.host,
         .registry = true});
    for (const std::string& mirror : options.mirrors) {
      endpoints_.insert(
          endpoints_.end() - 1,
          {.base = absl::StrCat(absl::StripSuffix(mirror, "/"), "/v2/", reference.repository, "/"),
           .query = absl::StrCat("?ns=", UrlEscape(reference.host)),
           .name = absl::StrCat(absl::StripSuffix(mirror, "/")),
           .registry = false});
    }
  }

  // Mirrors first, the registry itself last.
  const std::vector<Endpoint>& endpoints() const { return endpoints_; }
  const Endpoint& registry() const { return endpoints_.back(); }

  // One request, with redirects and, at the registry, a login. On failure what to do about it.
  std::unique_ptr<HttpStream> Get(const Endpoint& endpoint, const std::string& path,
                                  const std::vector<std::string>& headers, Failure& failure) {
    failure = Failure();
    for (int logins = 0;; ++logins) {
      const std::string token = endpoint.registry ? Authorization() : "";
      absl::StatusOr<std::unique_ptr<HttpStream>> answer =
          Follow(endpoint.base + path + endpoint.query, headers, token);
      if (!answer.ok()) {
        failure = {.status = answer.status(), .retry = absl::IsUnavailable(answer.status())};
        break;
      }
      const int status = (*answer)->status();
      if (status == 200 || status == 206) return *std::move(answer);
      if (status == 401 && endpoint.registry && logins == 0) {
        const std::string challenge = (*answer)->header("www-authenticate");
        failure.status = Login(challenge, token);
        failure.retry = absl::IsUnavailable(failure.status);
        if (failure.status.ok()) continue;
        break;
      }
      failure = FailureOf(**answer);
      break;
    }
    failure.status = Annotate(failure.status, endpoint.name);
    return nullptr;
  }

 private:
  absl::StatusOr<std::unique_ptr<HttpStream>> Follow(const std::string& url,
                                                     const std::vector<std::string>& headers,
                                                     const std::string& authorization) {
    const std::string origin = UrlOrigin(url);
    HttpStreamRequest request = {
        .url = url, .headers = headers, .form = "", .ca_file = options_.ca_file};
    for (int redirects = 0; redirects <= kMaxRegistryRedirects; ++redirects) {
      request.headers = headers;
      // Storage servers refuse a foreign Authorization, and it is none of their business.
      if (!authorization.empty() && UrlOrigin(request.url) == origin) {
        request.headers.push_back("Authorization: " + authorization);
      }
      ASSIGN_OR_RETURN(std::unique_ptr<HttpStream> answer, HttpStream::Open(request));
      if (answer->redirect().empty()) return answer;
      const std::string next = UrlOrigin(answer->redirect());
      if (next.empty()) return absl::PermissionDeniedError("redirects to something that is no url");
      if (absl::StartsWith(UrlOrigin(request.url), "https:") && absl::StartsWith(next, "http:")) {
        return absl::PermissionDeniedError("redirects from https to http, which is not followed");
      }
      request.allow_link_local = false;
      request.url = answer->redirect();
    }
    return absl::PermissionDeniedError("redirects too often");
  }

  std::string Authorization() {
    MutexLock lock(mutex_);
    return Clock::now() < expires_ ? authorization_ : "";
  }

  void Remember(std::string authorization, std::chrono::seconds lifetime) {
    MutexLock lock(mutex_);
    authorization_ = std::move(authorization);
    expires_ = Clock::now() + lifetime;
  }

  std::string Basic() const {
    return "Basic " + absl::Base64Escape(absl::StrCat(options_.credentials->user, ":",
                                                      options_.credentials->password));
  }

  // `refused`: what the registry just did not accept; another thread may have a newer one.
  absl::Status Login(const std::string& header, const std::string& refused) {
    if (const std::string now = Authorization(); !now.empty() && now != refused) {
      return absl::OkStatus();
    }
    const bool has_password =
        options_.credentials.has_value() && !options_.credentials->user.empty();
    for (const Challenge& challenge : ParseChallenges(header)) {
      if (challenge.scheme == "bearer") return FetchToken(challenge);
      if (challenge.scheme == "basic" && has_password && refused.empty()) {
        Remember(Basic(), std::chrono::hours(24));
        return absl::OkStatus();
      }
    }
    return absl::UnauthenticatedError(
        options_.credentials.has_value()
            ? "answers 401 Unauthorized: it does not accept the credentials"
            : "answers 401 Unauthorized: it wants credentials, and there are none for it");
  }

  absl::Status FetchToken(const Challenge& challenge) {
    const auto parameter = [&challenge](const char* name) {
      const auto found = challenge.parameters.find(name);
      return found == challenge.parameters.end() ? std::string() : found->second;
    };
    const std::string realm = parameter("realm"), origin = UrlOrigin(realm);
    if (!absl::StartsWith(origin, "https:") && !(options_.plain_http && !origin.empty())) {
      return absl::PermissionDeniedError("names a token server without https, which is not asked");
    }
    const std::string scope = absl::StrCat("repository:", reference_.repository, ":pull");
    HttpStreamRequest request;
    request.ca_file = options_.ca_file;
    request.url =
        absl::StrCat(realm, absl::StrContains(realm, '?') ? "&" : "?",
                     "service=", UrlEscape(parameter("service")), "&scope=", UrlEscape(scope));
    if (options_.credentials.has_value()) {
      if (options_.credentials->identity_token.empty()) {
        request.headers.push_back("Authorization: " + Basic());
      } else {
        request.url = realm;
        request.form =
            absl::StrCat("grant_type=refresh_token&client_id=nomad-driver-jenkins-agent&service=",
                         UrlEscape(parameter("service")), "&scope=", UrlEscape(scope),
                         "&refresh_token=", UrlEscape(options_.credentials->identity_token));
      }
    }
    const std::string context = absl::StrCat("token server ", origin);
    ASSIGN_OR_RETURN(const std::unique_ptr<HttpStream> answer, HttpStream::Open(request), context);
    if (answer->status() != 200) return Annotate(FailureOf(*answer).status, context);
    ASSIGN_OR_RETURN(const std::string text, ReadText(*answer, kMaxTokenBytes), context);
    ASSIGN_OR_RETURN(const Token token, ParseToken(text), context);
    Remember("Bearer " + token.value, std::chrono::seconds(token.lifetime_s));
    return absl::OkStatus();
  }

  const Reference reference_;
  const RegistryOptions options_;
  std::vector<Endpoint> endpoints_;
  Mutex mutex_;
  std::string authorization_ ABSL_GUARDED_BY(mutex_);  // of a header
  Clock::time_point expires_ ABSL_GUARDED_BY(mutex_);
};

// A blob from one endpoint, continued where the connection broke off.
class BlobStream : public ByteSource {
 public:
  BlobStream(std::shared_ptr<Session> session, const Endpoint& endpoint,
             const Descriptor& descriptor)
      : session_(std::move(session)), endpoint_(endpoint), descriptor_(descriptor) {}

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    for (;;) {
      Failure failure;
      if (stream_ == nullptr && position_ < descriptor_.size) stream_ = Open(failure);
      if (failure.status.ok()) {
        if (stream_ == nullptr) return size_t{0};
        const absl::StatusOr<size_t> count = stream_->Read(buffer, size);
        // The descriptor's size is checked by whoever reads; a server that stops early is asked on.
        if (count.ok() && (*count > 0 || position_ >= descriptor_.size)) {
          position_ += static_cast<int64_t>(*count);
          if (*count > 0) tries_ = 0;
          return count;
        }
        failure.retry = true;
        failure.status = absl::UnavailableError(absl::StrCat(
            endpoint_.name, ": broke off at byte ", position_, " of ", descriptor_.size,
            count.ok() ? "" : ": ", count.ok() ? "" : count.status().message()));
      }
      stream_ = nullptr;
      if (!failure.retry || ++tries_ >= kMaxTriesWithoutProgress) return failure.status;
      Pause(PauseBefore(tries_ - 1, failure.wait));
    }
  }

 private:
  std::unique_ptr<HttpStream> Open(Failure& failure) {
    std::vector<std::string> headers;
    if (position_ > 0) headers.push_back(absl::StrCat("Range: bytes=", position_, "-"));
    std::unique_ptr<HttpStream> answer = session_->Get(
        endpoint_, absl::StrCat("blobs/", descriptor_.digest.ToString()), headers, failure);
    if (answer == nullptr) return nullptr;
    if (answer->status() == 200) {
      // The whole again: not every server knows Range.
      failure.status = Skip(*answer, position_);
      failure.retry = !failure.status.ok();
    } else if (answer->status() != 206 || position_ == 0 ||
               !absl::StartsWith(answer->header("content-range"),
                                 absl::StrCat("bytes ", position_, "-"))) {
      failure.status =
          absl::UnavailableError(absl::StrCat(endpoint_.name, ": answers ", answer->status_text(),
                                              " with another range than byte ", position_, " on"));
    }
    if (!failure.status.ok()) return nullptr;
    return answer;
  }

  static absl::Status Skip(ByteSource& stream, int64_t bytes) {
    std::string buffer(64 << 10, '\0');
    while (bytes > 0) {
      ASSIGN_OR_RETURN(const size_t count,
                       stream.Read(buffer.data(), std::min<size_t>(buffer.size(), bytes)));
      if (count == 0) return absl::UnavailableError("broke off");
      bytes -= static_cast<int64_t>(count);
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<Session> session_;
  const Endpoint endpoint_;
  const Descriptor descriptor_;
  std::unique_ptr<HttpStream> stream_;
  int64_t position_ = 0;
  int tries_ = 0;
};

class RegistrySource : public ImageSource {
 public:
  RegistrySource(const Reference& reference, const RegistryOptions& options)
      : reference_(reference), session_(std::make_shared<Session>(reference, options)) {}

  // What a tag means is the registry's to say; a digest may come from anywhere.
  absl::StatusOr<FetchedDocument> Root() override {
    if (!reference_.digest.empty()) return FromAny(reference_.digest);
    return Fetch(session_->registry(), reference_.tag);
  }

  absl::StatusOr<FetchedDocument> Document(const Descriptor& descriptor) override {
    return FromAny(descriptor.digest);
  }

  absl::StatusOr<std::unique_ptr<ByteSource>> Blob(const Descriptor& descriptor,
                                                   int attempt) override {
    if (attempt >= static_cast<int>(session_->endpoints().size())) {
      return absl::NotFoundError("there is no further place to get it from");
    }
    return std::make_unique<BlobStream>(session_, session_->endpoints()[attempt], descriptor);
  }

 private:
  absl::StatusOr<FetchedDocument> FromAny(const Digest& digest) {
    absl::StatusOr<FetchedDocument> document;
    for (const Endpoint& endpoint : session_->endpoints()) {
      document = Fetch(endpoint, digest.ToString());
      if (document.ok() && Digest::Of(document->text) == digest) break;
      if (document.ok()) {
        document = absl::DataLossError(absl::StrCat(
            endpoint.name, ": what it sends does not have the digest ", digest.ToString()));
      }
    }
    return document;
  }

  absl::StatusOr<FetchedDocument> Fetch(const Endpoint& endpoint, const std::string& target) {
    for (int tries = 0;;) {
      Failure failure;
      const std::unique_ptr<HttpStream> answer =
          session_->Get(endpoint, absl::StrCat("manifests/", target),
                        {absl::StrCat("Accept: ", kAcceptedManifests)}, failure);
      if (answer != nullptr) {
        absl::StatusOr<std::string> text = ReadText(*answer, kMaxManifestBytes);
        if (text.ok()) {
          return FetchedDocument{.text = *std::move(text),
                                 .content_type = answer->header("content-type")};
        }
        failure = {.status = Annotate(text.status(), endpoint.name),
                   .retry = absl::IsUnavailable(text.status())};
      }
      if (!failure.retry || ++tries >= kMaxTriesWithoutProgress) return failure.status;
      Pause(PauseBefore(tries - 1, failure.wait));
    }
  }

  const Reference reference_;
  const std::shared_ptr<Session> session_;
};

}  // namespace

std::unique_ptr<ImageSource> MakeRegistrySource(const Reference& reference,
                                                const RegistryOptions& options) {
  return std::make_unique<RegistrySource>(reference, options);
}

}  // namespace jenkins_agent
