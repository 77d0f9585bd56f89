"""The Celery app and the whole beat schedule in one table."""
