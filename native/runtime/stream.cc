#include "stream.h"

namespace westwind {

std::string JobLabel::text() const {
  std::string out = op;
  const char* separator = " [";
  for (const Size& size : sizes) {
    if (size.name == nullptr) break;
    out += separator;
    out += size.name;
    out += '=';
    out += std::to_string(size.value);
    separator = ", ";
  }
  return separator[0] == ',' ? out + "]" : out;
}

Stream::Stream(Backend& backend) : backend_(backend), thread_([this] { run(); }) {}

Stream::~Stream() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Stream::push(Job job) {
  {
    std::lock_guard lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
}

void Stream::enqueue(const JobLabel& label, std::function<Status(Backend&)> work) {
  push({label, std::move(work), nullptr});
}

void Stream::enqueue_wait(const JobLabel& label, std::function<Status(Backend&)> work,
                          std::function<void(const std::string&)> done) {
  push({label, std::move(work), std::move(done)});
}

void Stream::drain() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return jobs_.empty() && !busy_; });
}

void Stream::run() {
  backend_.start_stream_thread();
  while (true) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      busy_ = false;
      if (jobs_.empty()) idle_.notify_all();
      wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
      if (stop_) break;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      busy_ = true;
    }
    if (error_.empty() && job.work) {
      Status status = job.work(backend_);
      if (status.ok && job.done) status = backend_.wait();
      if (!status.ok) error_ = job.label.text() + ": " + status.message;
    }
    if (job.done) {
      const std::string error = std::move(error_);
      error_.clear();
      job.done(error);
    }
  }
  for (Job& job : jobs_) {  // nothing is pushed any more: the owner is in the destructor
    if (job.done) job.done(job.label.text() + ": the device was disposed before this ran");
  }
}

}  // namespace westwind
