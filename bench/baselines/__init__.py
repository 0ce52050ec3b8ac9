"""What haulcast is measured against."""
