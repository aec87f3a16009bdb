#include "driver/image/http_stream.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "driver/base/status.h"

namespace jenkins_agent {
namespace {

constexpr size_t kMaxHeadBytes = 64 << 10;
constexpr size_t kMaxStatusBytes = 128;
constexpr size_t kMaxBuffered = 256 << 10;  // and what libcurl hands out at once, 16 KiB
constexpr long kConnectTimeoutSeconds = 30;
constexpr long kLowSpeedBytesPerSecond = 100;
constexpr int kPollMilliseconds = 1000;  // upper bound; libcurl knows its own timers

bool IsLinkLocal(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    const auto* v4 = reinterpret_cast<const sockaddr_in*>(address);
    return (ntohl(v4->sin_addr.s_addr) >> 16) == 0xa9fe;
  }
  if (address->sa_family == AF_INET6) {
    return IN6_IS_ADDR_LINKLOCAL(&reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr);
  }
  return false;
}

class CurlStream : public HttpStream {
 public:
  CurlStream() : multi_(::curl_multi_init()), easy_(::curl_easy_init()) {}
  ~CurlStream() override {
    ::curl_multi_remove_handle(multi_, easy_);
    ::curl_easy_cleanup(easy_);
    ::curl_slist_free_all(headers_);
    ::curl_multi_cleanup(multi_);
  }

  absl::Status Begin(const HttpStreamRequest& request) {
    SetOptions(request);
    ::curl_multi_add_handle(multi_, easy_);
    while (!head_complete_ && !done_) RETURN_IF_ERROR(Advance());
    // A body that broke off behind a complete head is for Read to tell, after what has come of it.
    if (!head_complete_) return error_.ok() ? absl::UnavailableError("sent no answer") : error_;
    if (char* url = nullptr;
        ::curl_easy_getinfo(easy_, CURLINFO_REDIRECT_URL, &url) == CURLE_OK && url != nullptr) {
      redirect_ = url;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<size_t> Read(char* buffer, size_t size) override {
    const auto deadline = std::chrono::steady_clock::now() + kHttpIdleTimeout;
    while (begin_ == buffered_.size() && !done_) {
      if (paused_) {
        paused_ = false;
        ::curl_easy_pause(easy_, CURLPAUSE_CONT);
        continue;
      }
      if (std::chrono::steady_clock::now() > deadline) {
        return absl::UnavailableError(
            absl::StrCat("sent nothing for ", kHttpIdleTimeout.count(), " s"));
      }
      RETURN_IF_ERROR(Advance());
    }
    if (begin_ == buffered_.size()) {
      RETURN_IF_ERROR(error_);
      return size_t{0};
    }
    const size_t count = std::min(size, buffered_.size() - begin_);
    ::memcpy(buffer, buffered_.data() + begin_, count);
    begin_ += count;
    if (begin_ == buffered_.size()) {
      buffered_.clear();
      begin_ = 0;
    }
    return count;
  }

  int status() const override { return status_; }
  const std::string& status_text() const override { return status_text_; }
  std::string header(const std::string& name) const override {
    const auto found = head_.find(name);
    return found == head_.end() ? "" : found->second;
  }
  const std::string& redirect() const override { return redirect_; }

 private:
  static size_t OnHeader(char* data, size_t size, size_t count, void* user) {
    return static_cast<CurlStream*>(user)->TakeHeader({data, size * count}) ? size * count : 0;
  }
  static size_t OnBody(char* data, size_t size, size_t count, void* user) {
    auto* const self = static_cast<CurlStream*>(user);
    if (self->buffered_.size() - self->begin_ > kMaxBuffered) {
      self->paused_ = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    self->buffered_.append(data, size * count);
    return size * count;
  }
  static curl_socket_t OpenSocket(void* user, curlsocktype, curl_sockaddr* address) {
    auto* const self = static_cast<CurlStream*>(user);
    if (!self->allow_link_local_ && IsLinkLocal(&address->addr)) {
      self->forbidden_ = true;
      return CURL_SOCKET_BAD;
    }
    return ::socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
  }

  void SetOptions(const HttpStreamRequest& request) {
    allow_link_local_ = request.allow_link_local;
    for (const std::string& header : request.headers) {
      headers_ = ::curl_slist_append(headers_, header.c_str());
    }
    ::curl_easy_setopt(easy_, CURLOPT_URL, request.url.c_str());
    ::curl_easy_setopt(easy_, CURLOPT_PROTOCOLS_STR, "http,https");
    ::curl_easy_setopt(easy_, CURLOPT_HTTPHEADER, headers_);
    ::curl_easy_setopt(easy_, CURLOPT_NOSIGNAL, 1L);
    ::curl_easy_setopt(easy_, CURLOPT_CONNECTTIMEOUT, kConnectTimeoutSeconds);
    ::curl_easy_setopt(easy_, CURLOPT_LOW_SPEED_LIMIT, kLowSpeedBytesPerSecond);
    ::curl_easy_setopt(easy_, CURLOPT_LOW_SPEED_TIME, static_cast<long>(kHttpIdleTimeout.count()));
    ::curl_easy_setopt(easy_, CURLOPT_USERAGENT, "nomad-driver-jenkins-agent");
    ::curl_easy_setopt(easy_, CURLOPT_BUFFERSIZE, 128L << 10);
    ::curl_easy_setopt(easy_, CURLOPT_HEADERFUNCTION, &OnHeader);
    ::curl_easy_setopt(easy_, CURLOPT_HEADERDATA, this);
    ::curl_easy_setopt(easy_, CURLOPT_WRITEFUNCTION, &OnBody);
    ::curl_easy_setopt(easy_, CURLOPT_WRITEDATA, this);
    ::curl_easy_setopt(easy_, CURLOPT_OPENSOCKETFUNCTION, &OpenSocket);
    ::curl_easy_setopt(easy_, CURLOPT_OPENSOCKETDATA, this);
    if (!request.form.empty())
      ::curl_easy_setopt(easy_, CURLOPT_COPYPOSTFIELDS, request.form.c_str());
    if (!request.ca_file.empty()) {
      ::curl_easy_setopt(easy_, CURLOPT_CAINFO, request.ca_file.c_str());
      ::curl_easy_setopt(easy_, CURLOPT_CAPATH, nullptr);
    }
  }

  bool TakeHeader(absl::string_view line) {
    head_bytes_ += line.size();
    if (head_bytes_ > kMaxHeadBytes) {
      error_ = absl::UnavailableError("its answer has too many header bytes");
      return false;
    }
    line = absl::StripTrailingAsciiWhitespace(line);
    if (absl::StartsWith(line, "HTTP/")) {
      head_.clear();
      const size_t space = std::min(line.find(' '), line.size());
      status_text_ =
          std::string(absl::StripAsciiWhitespace(line.substr(space)).substr(0, kMaxStatusBytes));
      for (char& c : status_text_) c = absl::ascii_isprint(c) ? c : '?';
    } else if (line.empty()) {
      long code = 0;
      ::curl_easy_getinfo(easy_, CURLINFO_RESPONSE_CODE, &code);
      status_ = static_cast<int>(code);
      head_complete_ = code >= 200;  // behind "100 Continue" comes the real one
    } else if (const size_t colon = line.find(':'); colon != absl::string_view::npos) {
      head_[absl::AsciiStrToLower(line.substr(0, colon))] =
          std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
    return true;
  }

  // Lets libcurl work, then waits for the network unless something came.
  absl::Status Advance() {
    const size_t before = buffered_.size();
    const bool head_before = head_complete_;
    int running = 0, left = 0;
    if (const CURLMcode code = ::curl_multi_perform(multi_, &running); code != CURLM_OK) {
      return absl::InternalError(::curl_multi_strerror(code));
    }
    if (const CURLMsg* message = ::curl_multi_info_read(multi_, &left); message != nullptr) {
      done_ = true;
      if (error_.ok() && message->data.result != CURLE_OK) error_ = Failed(message->data.result);
      return absl::OkStatus();
    }
    if (buffered_.size() != before || head_complete_ != head_before || paused_) {
      return absl::OkStatus();
    }
    if (const CURLMcode code = ::curl_multi_poll(multi_, nullptr, 0, kPollMilliseconds, nullptr);
        code != CURLM_OK) {
      return absl::InternalError(::curl_multi_strerror(code));
    }
    return absl::OkStatus();
  }

  absl::Status Failed(CURLcode code) const {
    if (forbidden_) {
      return absl::PermissionDeniedError("leads to a link-local address, which is not followed");
    }
    long number = 0;
    ::curl_easy_getinfo(easy_, CURLINFO_OS_ERRNO, &number);
    // libcurl's own text holds milliseconds: the same cause must give the same text.
    if (code == CURLE_COULDNT_CONNECT && number != 0) {
      return absl::UnavailableError(::strerror(static_cast<int>(number)));
    }
    return absl::UnavailableError(::curl_easy_strerror(code));
  }

  CURLM* const multi_;
  CURL* const easy_;
  curl_slist* headers_ = nullptr;
  bool allow_link_local_ = true;
  bool forbidden_ = false;
  bool head_complete_ = false;
  bool paused_ = false;
  bool done_ = false;
  absl::Status error_;
  size_t head_bytes_ = 0;
  int status_ = 0;
  std::string status_text_;
  std::string redirect_;
  std::map<std::string, std::string> head_;
  std::string buffered_;
  size_t begin_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpStream>> HttpStream::Open(const HttpStreamRequest& request) {
  if (UrlOrigin(request.url).empty())
    return absl::InvalidArgumentError("is not an http or https url");
  auto stream = std::make_unique<CurlStream>();
  RETURN_IF_ERROR(stream->Begin(request));
  return stream;
}

std::string UrlOrigin(const std::string& text) {
  CURLU* const url = ::curl_url();
  const absl::Cleanup free_url = [url] { ::curl_url_cleanup(url); };
  if (::curl_url_set(url, CURLUPART_URL, text.c_str(), 0) != CURLUE_OK) return "";
  std::string parts[3];
  const CURLUPart names[] = {CURLUPART_SCHEME, CURLUPART_HOST, CURLUPART_PORT};
  for (int i = 0; i < 3; ++i) {
    char* part = nullptr;
    if (::curl_url_get(url, names[i], &part, CURLU_DEFAULT_PORT) != CURLUE_OK) return "";
    parts[i] = absl::AsciiStrToLower(part);
    ::curl_free(part);
  }
  if (parts[0] != "http" && parts[0] != "https") return "";
  return absl::StrCat(parts[0], "://", parts[1], ":", parts[2]);
}

std::string UrlEscape(const std::string& text) {
  char* const escaped = ::curl_easy_escape(nullptr, text.data(), static_cast<int>(text.size()));
  const std::string result = escaped;
  ::curl_free(escaped);
  return result;
}

}  // namespace jenkins_agent
